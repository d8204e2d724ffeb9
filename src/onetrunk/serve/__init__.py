"""Deployment of models: export to ONNX."""
