"""Weights on the Hugging Face Hub, with a stand-in that keeps repositories in memory, and in local
folders: what is sent loads again, through the same checks, and errors are one sentence."""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import errors
from typer.testing import CliRunner

from norface_lib.cli.app import app
from norface_lib.common.errors import CheckpointError
from norface_lib.networks.cards import FOLDER
from norface_lib.networks.export_onnx import export_onnx
from norface_lib.networks.hub import push_to_hub
from norface_lib.networks.places import find_weights, parse_address
from norface_lib.networks.weights import load_classifier, load_evaluator, load_normalizer
from norface_lib.photos.engines import open_engine


class Hub:
    """Repositories in memory: the calls of ``HfApi`` and ``snapshot_download`` that are used."""

    def __init__(self, cache):
        self.cache = cache
        self.repositories = {}
        self.commits = 0

    def create_repo(self, repository, *, private, exist_ok):
        assert exist_ok
        self.repositories.setdefault(repository, {"main": {}})

    def create_commit(self, repository, operations, *, commit_message):
        assert commit_message
        self.commits += 1
        versions = self.repositories[repository]
        files = {
            operation.path_in_repo: operation.path_or_fileobj
            if isinstance(operation.path_or_fileobj, bytes)
            else Path(operation.path_or_fileobj).read_bytes()
            for operation in operations
        }
        versions["main"] = versions["main"] | files
        versions[f"c{self.commits}"] = versions["main"]
        return SimpleNamespace(oid=f"c{self.commits}")

    def snapshot_download(self, repository, *, revision, allow_patterns):
        files = self.repositories[repository][revision or "main"]
        folder = self.cache / repository / (revision or "main")
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (folder / name).write_bytes(content)
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Shipped readers without the shipped normalizers: a repository must bring its own."""
    push = tmp_path / "push"
    push.mkdir()
    for path in FOLDER.glob("tiny-photo*"):
        if not path.name.startswith("tiny-photo-224"):  # one normalizer is enough
            shutil.copy(path, push)
    return push


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("tiny", load_normalizer),
        ("tiny-photo-emotion", load_classifier),
        ("evaluator", load_evaluator),
    ],
)
def test_what_is_sent_loads_again(hub, name, load):
    files, revision = push_to_hub([name], "ann/faces", api=hub)
    assert revision == "c1" and "README.md" in files
    for address in (f"hf://ann/faces/{name}", f"hf://ann/faces@c1/{name}", "hf://ann/faces"):
        model, *_, card = load(address)
        expected, *_ = load(name)
        assert card["name"] == name
        for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_reader_brings_its_normalizer_along(hub, alone, monkeypatch):
    files, _ = push_to_hub([alone / "tiny-photo-au.safetensors"], "ann/reader", api=hub)
    assert set(files) == {
        "tiny-photo-au.safetensors",
        "tiny-photo-au.json",
        "tiny-photo.safetensors",
        "tiny-photo.json",
        "tiny-photo.png",
        "README.md",
    }
    monkeypatch.setattr("norface_lib.networks.places.FOLDER", alone / "nothing is shipped")
    assert load_classifier("hf://ann/reader")[1]["name"] == "tiny-photo-au"
    assert load_normalizer("hf://ann/reader")[2]["name"] == "tiny-photo"


def test_a_repository_serves_predict_and_export(hub, tmp_path):
    push_to_hub(["tiny-photo-au"], "ann/reader", api=hub)
    engine = open_engine(
        "torch", weights="hf://ann/reader", readers=["hf://ann/reader"], device="cpu"
    )
    assert engine.readers[0].task.name == "au_detection"
    about = export_onnx(["hf://ann/reader/tiny-photo-au"], tmp_path / "r.onnx")
    assert list(about["outputs"]) == ["tiny-photo-au"]


def test_a_revision_pins_the_files(hub, tmp_path):
    push_to_hub(["tiny"], "ann/faces", api=hub)
    push_to_hub(["tiny-photo"], "ann/faces", api=hub)
    assert load_normalizer("hf://ann/faces@c1")[2]["name"] == "tiny"
    with pytest.raises(CheckpointError, match=r"several normalizer weights; choose one of hf://an"):
        load_normalizer("hf://ann/faces@c2")
    with pytest.raises(CheckpointError, match=r"no such weights, but tiny$"):
        load_normalizer("hf://ann/faces@c1/tiny-photo")


def test_what_comes_from_the_hub_is_checked_like_any_file(hub):
    push_to_hub(["tiny-emotion"], "ann/reader", api=hub)
    files = hub.repositories["ann/reader"]["main"]
    card = json.loads(files["tiny-emotion.json"])
    card["config"]["labels"].reverse()
    del card["fingerprint"]
    files["tiny-emotion.json"] = json.dumps(card).encode()
    with pytest.raises(CheckpointError, match="does not belong to these weights"):
        load_classifier("hf://ann/reader")


def test_a_local_folder_needs_no_network(alone, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    assert load_normalizer(alone)[2]["name"] == "tiny-photo"
    with pytest.raises(CheckpointError, match=r"several classifier weights; choose one of .*-au"):
        load_classifier(alone)
    for name in ("tiny-photo-au", "tiny-photo-emotion"):
        (alone / f"{name}.safetensors").unlink()
    assert load_classifier(alone)[1]["name"] == "tiny-photo-intensity"
    with pytest.raises(CheckpointError, match="holds several weights"):
        find_weights(alone)


def test_a_folder_never_hides_shipped_weights_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_weights("tiny") == FOLDER / "tiny.safetensors"


# --- README and command ---------------------------------------------------------------------------


def test_the_readme_is_a_model_card(hub):
    files, _ = push_to_hub(["tiny-photo-au"], "ann/reader", dry_run=True)
    text = files["README.md"].decode()
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "mit"
    assert "AU01, AU02, AU04" in body and "## tiny-photo\n" in body
    assert 'load_classifier("hf://ann/reader/tiny-photo-au")' in body


def test_a_token_reader_is_sent_like_any_other_weights(hub):
    files, _ = push_to_hub(["tiny-photo-reader"], "ann/reader", dry_run=True)
    assert {"tiny-photo-reader.safetensors", "tiny-photo-reader.json"} < files.keys()
    text = files["README.md"].decode()
    assert 'reader, card = load_token_reader("hf://ann/reader/tiny-photo-reader")' in text


def test_a_dry_run_lists_the_files_and_asks_no_network(monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub, "HfApi", no_network)
    result = CliRunner().invoke(app, ["push", "tiny-photo-au", "ann/reader", "--dry-run"])
    assert result.exit_code == 0 and "tiny-photo.png" in result.output
    assert result.output.endswith("nothing was sent\n")


def test_the_command_names_the_revision(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: hub)
    result = CliRunner().invoke(app, ["push", "evaluator", "ann/evaluator"])
    assert result.output.endswith("hf://ann/evaluator@c1\n")


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://ann",
        "hf:///x",
        "hf://ann/../x",
        "hf://a/b/../../c",
        "hf://ann/x@",
        "hf://a b/c",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(CheckpointError, match="is no address of weights"):
        load_normalizer(address)


def test_parts_of_an_address():
    assert parse_address("hf://ann/faces") == ("ann/faces", None, None)
    assert parse_address("hf://ann/faces@v1.2/tiny-photo") == ("ann/faces", "v1.2", "tiny-photo")


def refusal(kind):
    """An error as the Hub answers."""
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("no", response=response)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalEntryNotFoundError("no"), "cannot be reached; call again with a network"),
        (errors.OfflineModeIsEnabled("no"), "cannot be reached"),
        (refusal(errors.RepositoryNotFoundError), "no such repository, or it is private"),
        (refusal(errors.RevisionNotFoundError), "the repository has no revision v9"),
        (refusal(errors.GatedRepoError), "gives access on request"),
        (refusal(errors.HfHubHTTPError), "cannot be fetched"),
        (OSError(28, "No space left on device"), "cannot be fetched: .*No space left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_one_sentence(error, words, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=f"hf://ann/faces@v9: .*{words}"):
        load_normalizer("hf://ann/faces@v9")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalTokenNotFoundError("no"), "needs a network, and the account"),
        (errors.HTTPError("refused"), "needs a network"),
        (refusal(errors.HfHubHTTPError), "run `hf auth login`"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_push_without_account_or_network_is_one_sentence(error, words):
    def refuse(*_, **__):
        raise error

    with pytest.raises(CheckpointError, match=f"^ann/faces: .*{words}"):
        push_to_hub(["tiny"], "ann/faces", api=SimpleNamespace(create_repo=refuse))


@pytest.mark.parametrize(
    "repository", ["faces", "hf://ann/faces", "ann/faces@v1", "ann/faces/x", ""]
)
def test_a_push_needs_a_name_of_a_repository(repository):
    with pytest.raises(CheckpointError, match=r"address of weights|is no name of a repository"):
        push_to_hub(["tiny"], repository, dry_run=True)


def test_weights_without_a_fingerprint_or_damaged_are_not_sent(alone, hub):
    path = alone / "tiny-photo-au.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        push_to_hub([path], "ann/reader", api=hub)
    assert not hub.repositories
