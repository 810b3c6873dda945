"""Settings from outside the file: `GW_A__B` variables, `GW_A__B_FILE` files, and a folder of secret files.

Every value stays with the name of its source, so that a problem with it can say where to look.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from config.keys import PREFIX, annotation_at, every_key, meant, variable_of
from config.model import Settings
from config.problems import Loc, SettingsProblem

CONFIG_VARIABLE = "GW_CONFIG"
SECRETS_DIR_VARIABLE = "GW_SECRETS_DIR"
# Read by the command line and by this module; they are no settings.
_RESERVED = {CONFIG_VARIABLE, SECRETS_DIR_VARIABLE}


@dataclass(frozen=True, slots=True)
class Override:
    """One value that replaces what the file says.

    Attributes:
        source: The variable, or the secret file.
        loc: Lower case, as the variable spells it.
        value: Decoded; may be a secret.
    """

    source: str
    loc: tuple[str, ...]
    value: Any = field(repr=False)


class _Schema(Settings, BaseSettings):
    """The settings as pydantic-settings wants to see them; never instantiated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")


class _OneVariable(EnvSettingsSource):
    """The environment source over one variable alone, so that a failure has one name."""

    def __init__(self, name: str, text: str) -> None:
        self._one = {name.lower(): text}
        super().__init__(_Schema, case_sensitive=False)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._one


def find_overrides(environ: Mapping[str, str]) -> tuple[list[Override], list[SettingsProblem]]:
    """Collect all values from outside the file.

    Returns:
        The overrides, the weakest first (secret folder, `_FILE` variables, variables; whole sections before their
        keys), and what is wrong with their names or files.
    """
    problems: list[SettingsProblem] = []
    folder = _from_folder(environ[SECRETS_DIR_VARIABLE], problems) if environ.get(SECRETS_DIR_VARIABLE) else []
    files: list[Override] = []
    plain: list[Override] = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _RESERVED:
            continue
        loc = _loc_of(name)
        if annotation_at(loc) is not None:
            plain.append(_decoded(name, loc, environ[name]))
        elif _names_file(name):
            files += _from_file(name, Path(environ[name]), problems)
        else:
            problems.append(SettingsProblem(name, None, None, "", f"no setting has this name{_meant(name)}"))
    return [override for group in (folder, files, plain) for override in sorted(group, key=_depth)], problems


def secret_files(environ: Mapping[str, str]) -> frozenset[Path]:
    """Name the files that `_FILE` variables name, and those of the secret folder that are settings, with the folder."""
    files = {Path(environ[name]) for name in environ if _names_file(name)}
    if environ.get(SECRETS_DIR_VARIABLE):
        folder = Path(environ[SECRETS_DIR_VARIABLE])
        files |= {folder, *(Path(found.source) for found in _from_folder(str(folder), []))}
    return frozenset(files)


def _names_file(name: str) -> bool:
    """Whether a variable is the `_FILE` of a key, and no key itself."""
    if not name.startswith(PREFIX) or name in _RESERVED or annotation_at(_loc_of(name)) is not None:
        return False
    return name.endswith("_FILE") and annotation_at(_loc_of(name.removesuffix("_FILE"))) is not None


def _loc_of(name: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(PREFIX).lower().split("__"))


def _depth(override: Override) -> int:
    return len(override.loc)


def _decoded(source: str, loc: tuple[str, ...], text: str) -> Override:
    """Decode JSON where the setting is a list or a section; text that is none is left for the model to judge."""
    if text == "null":
        return Override(source, loc, None)
    try:
        value: Any = _OneVariable(variable_of(loc), text)()
        for part in loc:
            value = value[part]
    except (SettingsError, KeyError, TypeError, RecursionError):
        value = text
    return Override(source, loc, value)


def _from_file(name: str, path: Path, problems: list[SettingsProblem]) -> list[Override]:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems.append(SettingsProblem(name, None, None, "", f"cannot read the file it names: {reason}"))
        return []
    return [_decoded(name, _loc_of(name.removesuffix("_FILE")), text)]


def _from_folder(folder: str, problems: list[SettingsProblem]) -> list[Override]:
    """Read `secrets/master_key` or `secrets__master_key` below `folder`.

    Files that are no setting at all are left alone: `/run/secrets` is shared, Kubernetes puts its own things there.
    """
    path = Path(folder).resolve()
    if not path.is_dir():
        problems.append(SettingsProblem(SECRETS_DIR_VARIABLE, None, None, "", "there is no such folder"))
        return []
    try:
        texts = NestedSecretsSettingsSource.load_secrets(path)
    except (OSError, ValueError, SettingsError):
        problems.append(
            SettingsProblem(SECRETS_DIR_VARIABLE, None, None, "", "holds a file that cannot be read as text")
        )
        return []
    found = []
    for name, text in texts.items():
        loc = tuple(name.lower().replace("/", "__").split("__"))
        if annotation_at(loc) is not None:
            found.append(_decoded(str(path / name), loc, text))
        elif annotation_at(loc[:1]) is not None:
            problems.append(SettingsProblem(str(path / name), None, None, "", "no setting has this name"))
    return found


def _meant(name: str) -> str:
    known: tuple[Loc, ...] = tuple(loc for loc, _ in every_key() if not {"<name>", "[]"} & set(loc))
    return meant(name, tuple(variable_of(loc) for loc in known))
