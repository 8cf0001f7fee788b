"""The course's notebooks as files: which there are, what each takes, and when one is outdated."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import reprlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import cxrlib
from cxrlib.files import cache_folder, no_such, parse_yaml, sha256, shipped

BACKENDS = ("tensorflow", "jax", "torch")
SHAPES_NOTHING = ("audit", "course")  # rooms of the package that no notebook's results hang on
PLACES = ("folder", "images")  # options of a source that name files
TABLES = (".csv", ".tsv", ".txt", ".gz", ".zip")  # their films lie beside them
KERAS_TAKES = {"float16", "float32", "float64", "channels_last", "channels_first"}
IN_A_WHEEL = ("data", "notebooks")  # folders of the course that lie in the installed package
SOURCES = ("source", "stage1_source", "inside_source", "outside_source")  # parameters
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class CourseError(ValueError):
    """A run that cannot start: an unknown notebook, profile or backend, a folder in use."""

    exit_code = 2  # of the command cxr: it was asked for something that does not exist


@dataclass(frozen=True)
class Lesson:
    """A notebook: its cells' kinds and text, its parameters' defaults, whose results it reads."""

    path: Path
    cells: tuple[tuple[str, str], ...]
    defaults: dict
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name without the ending, such as ``05_vgg16``."""
        return self.path.stem


def read(path: Path) -> Lesson:
    """Read a notebook file; a CourseError if it is none."""
    cells, defaults = [], {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        needs = tuple(content.get("metadata", {}).get("cxr", {}).get("needs", []))
        for cell in content["cells"]:
            cells.append((cell["cell_type"], "".join(cell["source"])))
            if "parameters" in cell.get("metadata", {}).get("tags", []):
                defaults |= assigned(cells[-1][1], path)
    except CourseError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CourseError(f"{path} is no Jupyter notebook ({error}).") from error
    return Lesson(path, tuple(cells), defaults, needs)


def assigned(source: str, path: Path) -> dict:
    """Names that a cell assigns, with their values; None for a value that is computed."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CourseError(f"{path.name}: its parameters cell is no Python: {error}.") from error
    found = {}
    for line in body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = ast.literal_eval(line.value)
                except (ValueError, TypeError, RecursionError, MemoryError):
                    found[target.id] = None
    return found


def find(folder: Path) -> list[Lesson]:
    """All notebooks ``NN_*.ipynb`` of a folder, in order; a CourseError if there are none."""
    found = [read(path) for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))]
    if not found:
        raise CourseError(f"{folder} holds no notebooks named NN_subject.ipynb.")
    return found


def choose(lessons: list[Lesson], only) -> list[Lesson]:
    """Those of the lessons whose number or name is given; all, if none is given."""
    by_key = {}
    for lesson in lessons:
        number = lesson.name.split("_")[0]
        for key in (lesson.name, f"{lesson.name}.ipynb", number, number.lstrip("0")):
            by_key[key] = lesson.name
    keys = [Path(key).name for key in only]
    for key, given in zip(keys, only, strict=True):
        if key not in by_key:
            raise CourseError(no_such("notebook", given, [lesson.name for lesson in lessons]))
    chosen = {by_key[key] for key in keys}
    return [lesson for lesson in lessons if lesson.name in chosen or not keys]


def read_profile(folder: Path, name: str) -> dict:
    """Read ``profiles/<name>.yaml`` beside the notebooks."""
    there = {path.stem: path for path in sorted((Path(folder) / "profiles").glob("*.yaml"))}
    if name not in there:
        raise CourseError(no_such("profile", name, list(there)))
    try:
        content = parse_yaml(there[name].read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError("it must hold lines 'name: value'")
    except ValueError as error:
        raise CourseError(f"{there[name]} is no profile: {error}") from error
    return content


def check_profile(lessons: list[Lesson], name: str, values: dict) -> None:
    """Refuse a profile that names a parameter which no notebook takes."""
    taken = sorted({parameter for lesson in lessons for parameter in lesson.defaults})
    odd = sorted(set(values) - set(taken))
    if odd:
        raise CourseError(f"Profile {name}: {no_such('parameter', odd[0], taken)}")


def parse_settings(settings) -> dict:
    """Turn ``["seed=3", "grid_layers=[1, 2]"]`` into a dict, the values read as YAML."""
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            told = f"--set takes name=value, such as --set seed=1, not {reprlib.repr(setting)}."
            raise CourseError(told)
        try:
            found[name.strip()] = _absolute(parse_yaml(text))
        except ValueError as error:
            raise CourseError(f"--set {reprlib.repr(setting)}: no YAML ({error}).") from error
    return found


def _absolute(value):
    """Make a path to a folder or weights file absolute: notebooks run in another folder."""
    if isinstance(value, str) and value.endswith(".h5"):
        return str(Path(value).expanduser().absolute())
    if isinstance(value, dict):
        named = {name: value[name] for name in PLACES if isinstance(value.get(name), str)}
        return value | {name: str(Path(one).expanduser().absolute()) for name, one in named.items()}
    return value


def check_settings(lessons: list[Lesson], profile: dict, settings: dict) -> None:
    """Refuse a setting that no chosen notebook takes, or whose kind of value is wrong."""
    known = {}
    for lesson in lessons:
        known |= lesson.defaults
    for name, value in settings.items():
        if name == "profile":
            raise CourseError("Choose a profile with --profile, not with --set.")
        if name not in known:
            chosen = ", ".join(lesson.name for lesson in lessons)
            raise CourseError(f"{no_such('parameter', name, sorted(known))} (Notebooks: {chosen}.)")
        usual = profile.get(name, known[name])
        kinds = (int, float) if type(usual) is float else type(usual)
        same = isinstance(value, kinds) and isinstance(value, bool) == isinstance(usual, bool)
        if not same and usual is not None and value is not None:
            wanted = f"{KINDS.get(type(usual), 'a list')}, such as {usual}"
            raise CourseError(f"--set {name}={reprlib.repr(value)}: {name} takes {wanted}.")


def parameters(lesson: Lesson, profile: dict, settings: dict) -> dict:
    """Values that a notebook is given: those of its parameters that are named."""
    values = profile | settings
    return {name: values[name] for name in lesson.defaults if name in values}


def backend() -> str:
    """Name of the Keras backend that notebooks will use, without importing Keras.

    A CourseError if it is unknown or not installed, or keras.json holds what Keras refuses.
    """
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    found = {}
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
    shapes = ("floatx", "image_data_format")
    if type(found) is not dict or {str(found[s]) for s in shapes if s in found} - KERAS_TAKES:
        raise CourseError(f"Keras refuses {path} as it is: {found}. Mend it, or take it away.")
    name = os.environ.get("KERAS_BACKEND") or found.get("backend", "tensorflow")
    if name not in BACKENDS:
        raise CourseError(no_such("Keras backend", name, list(BACKENDS)) + " Set KERAS_BACKEND.")
    if find_spec(name) is None:
        there = [other for other in BACKENDS if find_spec(other)]
        use = f", or use one that is installed: KERAS_BACKEND={there[0]}" if there else ""
        told = f"The Keras backend {name} is not installed. Install it: pip install"
        raise CourseError(f"{told} 'cxrlib[{name}]'{use}.")
    return name


def surroundings(package: Path | None = None) -> dict:
    """Gather what outside a notebook shapes its results: package, data, backend, settings, weights.

    All files of the package count, down to the last folder, code or not; but for the rooms of
    :data:`SHAPES_NOTHING`. `package` is its folder.
    """
    from cxrlib.compute import settings

    package = package or Path(cxrlib.__file__).parent
    data = shipped("data")
    used = {}
    for path in package.rglob("*"):
        place = path.relative_to(package)
        counts = place.parts[0] not in (*SHAPES_NOTHING, *IN_A_WHEEL)
        if counts and path.is_file() and "__pycache__" not in place.parts:
            used[place.as_posix()] = sha256(path)
    for path in data.rglob("*.*"):
        if path.suffix in (".csv", ".json", ".yml"):
            used[f"data/{path.relative_to(data).as_posix()}"] = sha256(path)
    weights = os.environ.get("CXR_WEIGHTS")
    name = backend()
    versions = [_version(name), _version("keras")]
    found = {"files": used, "backend": [name, *versions], "settings": settings()}
    return found | {"weights": [weights, _stats(weights)]}


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):  # TensorFlow may be there as tensorflow-cpu
        return metadata.version(name)


def _stats(*places) -> list:
    """Names, sizes and times of the files at these places, those in their folders too."""
    found = []
    for place in filter(None, places):
        place = Path(place).expanduser()
        root = place.parent if place.suffix.lower() in TABLES else place
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        files = [file for file in files if file.is_file() and not file.name.startswith(".")]
        stats = [(str(file), file.stat()) for file in files]
        found += [(name, one.st_size, one.st_mtime_ns) for name, one in stats]
    return found


def fingerprint(lesson: Lesson, values: dict, around: dict, out: Path) -> str:
    """SHA-256 of all that shapes what a notebook finds.

    Its own text, its parameters, :func:`surroundings`, the results that it reads, and the images
    and weights that its parameters name.
    """
    results = [out / "results" / f"{need}.json" for need in lesson.needs]
    read_by_it = [sha256(path) if path.exists() else None for path in results]
    options = [one for one in values.values() if isinstance(one, dict)]
    places = [one.get(name) for one in options for name in PLACES]
    if {"open", "external"} & {values.get(name) for name in SOURCES}:
        places.append(cache_folder("files"))
    files = _stats(*places, values.get("weights"))
    content = [lesson.cells, values, around, read_by_it, files]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
