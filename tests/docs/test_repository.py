"""The files for GitHub, PyPI, Read the Docs and development tools are valid and consistent."""

from __future__ import annotations

import datetime
import re
import tomllib
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [ROOT / f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug_report", "feature_request")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def read(path: Path | str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def oldest(package: str) -> str:
    """The oldest version of a dependency that pyproject.toml allows."""
    found = [re.fullmatch(rf"{package}>=([\d.]+)", each) for each in PROJECT["dependencies"]]
    (version,) = [match[1] for match in found if match]
    return version


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_rights_and_fixed_actions(path: Path) -> None:
    workflow = read(path)
    assert workflow["name"] == path.stem
    assert workflow[True]  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@(release/)?v\d+", each)] == []
    pythons = [step["with"] for step in steps(workflow) if "setup-python" in step.get("uses", "")]
    assert all(each["cache"] == "pip" for each in pythons)
    assert all((ROOT / each["cache-dependency-path"]).is_file() for each in pythons)


def test_all_workflows_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


def test_pythons_agree_in_matrix_and_classifiers() -> None:
    matrix = read(".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: 3."
    classified = [each.removeprefix(prefix) for each in PROJECT["classifiers"] if prefix in each]
    assert matrix["python"] == [f"3.{minor}" for minor in classified]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"
    assert {os.partition("-")[0] for os in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_the_oldest_torch_is_tested() -> None:
    (old,) = read(".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    torch, torchvision = oldest("torch"), oldest("torchvision")
    assert old["constraints"] == f"torch=={torch}.* torchvision=={torchvision}.*"
    assert PROJECT["requires-python"] == f">={old['python']}"
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert f'"torch>={torch}" "torchvision>={torchvision}"' in dockerfile


def test_a_release_needs_no_password() -> None:
    workflow = read(".github/workflows/release.yml")
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert "python -m build" in [step.get("run") for step in steps(workflow)]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text("utf-8")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_complete(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [each for each in form["body"] if each["type"] != "markdown"]
    assert {each["type"] for each in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(each["attributes"]["label"] for each in fields)
    ids = [each["id"] for each in fields]
    assert len(ids) == len(set(ids))
    assert any(each.get("validations", {}).get("required") for each in fields)


def test_the_issue_chooser_has_links() -> None:
    config = read(".github/ISSUE_TEMPLATE/config.yml")
    assert config["blank_issues_enabled"] is False
    for link in config["contact_links"]:
        assert link.keys() == {"name", "url", "about"}
        assert link["url"].startswith("https://")


def test_the_citation_is_complete() -> None:
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    for key in ("message", "title", "authors", "license", "repository-code"):
        assert citation[key], key
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["version"] in releases()
    assert citation["date-released"] == releases()[citation["version"]]


def test_hooks_run_the_pinned_ruff() -> None:
    repos = {each["repo"]: each for each in read(".pre-commit-config.yaml")["repos"]}
    ruff = repos["https://github.com/astral-sh/ruff-pre-commit"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in requirements()
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]


def test_read_the_docs_builds_what_make_docs_builds() -> None:
    config = read(".readthedocs.yaml")
    assert config["version"] == 2
    assert (ROOT / config["sphinx"]["configuration"]).is_file()
    assert config["sphinx"]["fail_on_warning"] is True
    (install,) = config["python"]["install"]
    assert set(install["extra_requirements"]) <= PROJECT["optional-dependencies"].keys()


def requirements() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    return [line.partition(" ;")[0].strip() for line in lines if not line.startswith("#")]


def test_requirements_are_pinned_and_name_no_index() -> None:
    for line in requirements():
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+", line), line


def test_requirements_have_every_dependency() -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in requirements()}
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    names = {re.split(r"[\[<>=!~ ;]", each)[0].lower().replace("_", "-") for each in wanted}
    trackers = {"wandb", "mlflow", "trackio"}  # too large for everybody's environment
    assert names - pinned == {PROJECT["name"], *trackers}


def test_the_container_is_not_run_by_root() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("USER root", "USER 0")
    assert 'ENTRYPOINT ["onetrunk"]' in lines
    assert 'ARG TORCH_INDEX_URL=""' in lines
    assert not any("://" in line for line in lines)


def releases() -> dict[str, str]:
    """Version and date of each release in the changelog, the newest first."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    return dict(re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE))


def test_the_changelog_is_kept() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert headings[1:] == [f"[{version}] - {date}" for version, date in releases().items()]
    days = [datetime.date.fromisoformat(date) for date in releases().values()]
    assert all(newer >= older for newer, older in pairwise(days))
    assert releases()["0.1.0"]
    assert PROJECT["version"] in releases()
    groups = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= groups
    for heading in headings:
        name = heading.partition("]")[0].removeprefix("[")
        assert re.search(rf"^\[{re.escape(name)}\]: https://", text, re.MULTILINE), name


def test_the_projects_pages_are_named() -> None:
    assert PROJECT["urls"].keys() == {"Repository", "Documentation", "Changelog", "Issues"}
    for name in ("SECURITY.md", "CONTRIBUTING.md", "LICENSE", ".github/PULL_REQUEST_TEMPLATE.md"):
        assert (ROOT / name).is_file()
