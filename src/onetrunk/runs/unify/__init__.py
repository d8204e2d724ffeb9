"""From domains to one network: specialists, candidates for one network, and a choice."""
