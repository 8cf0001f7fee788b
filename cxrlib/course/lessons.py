"""The course's notebooks as files: which there are, what each takes, and when one is outdated."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import reprlib
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import cxrlib
from cxrlib.files import cache_folder, no_such, parse_yaml, sha256, shipped

BACKENDS = ("tensorflow", "jax", "torch")
SHAPES_NOTHING = ("audit", "course")  # rooms of the package that no notebook's results hang on
IN_A_WHEEL = ("data", "notebooks")  # folders of the course that lie in the installed package
SOURCES = ("source", "stage1_source", "inside_source", "outside_source")  # parameters


class CourseError(ValueError):
    """A run that cannot start: an unknown notebook, profile, parameter or backend."""

    exit_code = 2  # of the command cxr: it was asked for something that does not exist


@dataclass(frozen=True)
class Lesson:
    """A notebook: its cells' text, its parameters' defaults, and whose results it reads."""

    path: Path
    cells: tuple[tuple[str, str], ...]
    defaults: dict
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name without the ending, such as ``05_vgg16``."""
        return self.path.stem


def read(path: Path) -> Lesson:
    """Read a notebook file.

    Raises
    ------
    CourseError
        If the file is no notebook.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = [(cell["cell_type"], "".join(cell["source"]), cell) for cell in content["cells"]]
        needs = content.get("metadata", {}).get("cxr", {}).get("needs", [])
        tagged = [
            source
            for _, source, cell in cells
            if "parameters" in cell.get("metadata", {}).get("tags", [])
        ]
        needs = tuple(needs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CourseError(f"{path} is no Jupyter notebook ({error}).") from error
    defaults = {}
    for source in tagged:
        defaults |= assigned(source, path)
    return Lesson(path, tuple((kind, source) for kind, source, _ in cells), defaults, needs)


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
    """All notebooks ``NN_*.ipynb`` of a folder, in order.

    Raises
    ------
    CourseError
        If there are none.
    """
    found = [read(path) for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))]
    if not found:
        raise CourseError(f"{folder} holds no notebooks named NN_subject.ipynb.")
    return found


def choose(lessons: list[Lesson], only) -> list[Lesson]:
    """Those of the lessons whose number or name is given; all, if none is given."""
    if not only:
        return lessons
    by_key = {}
    for lesson in lessons:
        number = lesson.name.split("_")[0]
        for key in (lesson.name, f"{lesson.name}.ipynb", number, number.lstrip("0")):
            by_key[key] = lesson
    names = [lesson.name for lesson in lessons]
    unknown = [key for key in only if Path(key).name not in by_key]
    if unknown:
        raise CourseError(no_such("notebook", unknown[0], names))
    chosen = {by_key[Path(key).name].name for key in only}
    return [lesson for lesson in lessons if lesson.name in chosen]


def read_profile(folder: Path, name: str) -> dict:
    """Read ``profiles/<name>.yaml`` beside the notebooks."""
    there = {path.stem: path for path in sorted((Path(folder) / "profiles").glob("*.yaml"))}
    if name not in there:
        raise CourseError(no_such("profile", name, list(there)))
    try:
        content = parse_yaml(there[name].read_text(encoding="utf-8")) or {}
    except ValueError as error:
        raise CourseError(f"{there[name]} is no YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CourseError(f"{there[name]} must hold lines 'name: value'.")
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
            raise CourseError(
                f"--set takes name=value, such as --set seed=1, not {reprlib.repr(setting)}."
            )
        try:
            found[name.strip()] = _absolute(parse_yaml(text))
        except ValueError as error:
            raise CourseError(f"--set {reprlib.repr(setting)}: no YAML ({error}).") from error
    return found


def _absolute(value):
    """Make a path to a folder or weights file absolute: notebooks run in another folder."""
    if isinstance(value, str) and value.endswith(".h5"):
        return str(Path(value).expanduser().absolute())
    if isinstance(value, dict) and isinstance(value.get("folder"), str):
        return value | {"folder": str(Path(value["folder"]).expanduser().absolute())}
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
        if not _same_kind(value, usual):
            kind = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
            wanted = f"{kind.get(type(usual), 'a list')}, such as {usual}"
            raise CourseError(f"--set {name}={reprlib.repr(value)}: {name} takes {wanted}.")


def _same_kind(value, usual) -> bool:
    if usual is None or value is None:
        return True
    if isinstance(usual, bool) or isinstance(value, bool):
        return isinstance(usual, bool) and isinstance(value, bool)
    if isinstance(usual, float):
        return isinstance(value, int | float)
    return isinstance(value, type(usual))


def parameters(lesson: Lesson, profile: dict, settings: dict) -> dict:
    """Values that a notebook is given: those of its parameters that are named."""
    values = profile | settings
    return {name: values[name] for name in lesson.defaults if name in values}


def backend() -> str:
    """Name of the Keras backend that notebooks will use, without importing Keras.

    Raises
    ------
    CourseError
        If it is unknown or not installed.
    """
    name = os.environ.get("KERAS_BACKEND") or _configured_backend()
    if name not in BACKENDS:
        raise CourseError(no_such("Keras backend", name, list(BACKENDS)) + " Set KERAS_BACKEND.")
    if find_spec(name) is None:
        there = [other for other in BACKENDS if find_spec(other)]
        use = f", or use one that is installed: KERAS_BACKEND={there[0]}" if there else ""
        raise CourseError(
            f"The Keras backend {name} is not installed. Install it: "
            f"pip install 'cxrlib[{name}]'{use}."
        )
    return name


def _configured_backend() -> str:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def surroundings(package: Path | None = None) -> dict:
    """Gather what outside a notebook shapes its results: package, data, backend, weights.

    Parameters
    ----------
    package : path, optional
        Folder of the package; that of ``cxrlib`` by default.
    """
    weights = os.environ.get("CXR_WEIGHTS")
    files = sorted(Path(weights).expanduser().glob("*")) if weights else []
    name = backend()
    return {
        "files": _hashes(package or Path(cxrlib.__file__).parent),
        "backend": [name, _version(name), _version("keras")],
        "weights": [weights, [(str(path), path.stat().st_mtime_ns) for path in files]],
    }


def _hashes(package: Path) -> dict[str, str]:
    """SHA-256 of all files of the package and of the data that can shape a result, by place.

    All rooms count but those of :data:`SHAPES_NOTHING`, down to the last folder, code or not.
    """
    data = shipped("data")
    used = {}
    for path in package.rglob("*"):
        place = path.relative_to(package)
        counts = place.parts[0] not in (*SHAPES_NOTHING, *IN_A_WHEEL)
        if counts and path.is_file() and "__pycache__" not in place.parts:
            used[place.as_posix()] = path
    for path in data.rglob("*.*"):
        if path.suffix in (".csv", ".json", ".yml"):
            used[f"data/{path.relative_to(data).as_posix()}"] = path
    return {place: sha256(path) for place, path in sorted(used.items())}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _files_read(values: dict) -> list:
    """Names, sizes and times of the image and weights files that the parameters name."""
    options = [values.get(name.replace("source", "options")) for name in SOURCES[1:]]
    options.append(values.get("source_options"))
    places = [one.get("folder") for one in options if isinstance(one, dict)]
    if {"open", "external"} & {values.get(name) for name in SOURCES}:
        places.append(cache_folder("files"))
    places.append(values.get("weights"))
    found = []
    for place in filter(None, places):
        place = Path(place).expanduser()
        root = place.parent if place.suffix.lower() == ".csv" else place
        files = [root] if root.is_file() else sorted(root.rglob("*")) if root.is_dir() else []
        files = [file for file in files if file.is_file() and not file.name.startswith(".")]
        stats = [(str(file), file.stat()) for file in files]
        found += [(name, one.st_size, one.st_mtime_ns) for name, one in stats]
    return found


def fingerprint(lesson: Lesson, values: dict, around: dict, out: Path) -> str:
    """SHA-256 of all that shapes what a notebook finds.

    Its own text, its parameters, :func:`surroundings`, and the results that it reads.
    """
    results = [out / "results" / f"{need}.json" for need in lesson.needs]
    read_by_it = [sha256(path) if path.exists() else None for path in results]
    content = [lesson.cells, values, around, read_by_it, _files_read(values)]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
