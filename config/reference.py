"""The settings told to people and editors: `docs/settings.md` and the JSON Schema, both made from the model."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.keys import annotation_at, every_key, plain_annotation
from config.meaning import MEANING
from config.model import Section, Settings
from config.problems import Loc
from config.rates import Rate
from config.values import Address, parse_size

_INTRODUCTION = """\
# Settings

<!-- Made by `gateway schema --markdown`; a test compares. Edit `config/model.py` and `config/meaning.py` instead. -->

One YAML 1.2 file, by default `gateway.yaml` in the current folder; `-c FILE` or `GW_CONFIG` names another. `gateway
check` tells everything that is wrong with it at once, each problem with file, line, column and key. Unknown and doubled
keys are refused.

**Environment.** Every key has a variable: `GW_` and the key in capitals, `__` for each dot. Lists and whole sections
are JSON there; a list replaces that of the file, a section is merged into it, `null` stands for none. Unknown `GW_*`
variables are refused: in Kubernetes, a service named `gw` makes such variables, so set `enableServiceLinks: false`.

**Secret files.** `GW_A__B_FILE=/path` reads one key from a file. `GW_SECRETS_DIR=/run/secrets` reads all files of a
folder that are named like keys: `secrets/master_key` or `secrets__master_key`; other files there are left alone. A
variable wins over a `_FILE`, that over the folder, and that over the YAML file.

**Reload.** `serve` takes a changed file into force without a restart, and on SIGHUP; variables stay those of the start.
`listen`, `admin.listen`, `workers`, `fast_lane`, `data_dir`, `tls` itself (not its files) and `database.embedded` wait
for a restart; the log names them.

**Values.** Durations carry their unit: `250ms`, `10s`, `5m`, `1h`, `180d`. Sizes: `32 KiB`, `1 MB`. Origins are written
as browsers send them: `https://app.example.com`, without a slash at the end.

The smallest file `serve` takes:

```yaml
listen: 127.0.0.1:8080
clerk: {publishable_key: pk_live_…}
database: {url: postgresql://gateway@127.0.0.1/gateway}
upstreams: {app: {url: http://127.0.0.1:9000}}
routes: [{path: /**, auth: required, upstream: app}]
# and GW_SECRETS__MASTER_KEY in the environment: 32 or more random characters
```
"""


def schema() -> dict[str, Any]:
    """Build the JSON Schema (2020-12) of the settings file, for editors."""
    document = Settings.model_json_schema()
    for loc, _ in every_key():
        # `[]` and `<name>` stand for an item: the section that holds the key is the annotation above it.
        section = plain_annotation(annotation_at(tuple(0 if part == "[]" else part for part in loc[:-1])))
        holder = document if section is Settings else document["$defs"][section.__name__]
        holder["properties"][loc[-1]]["description"] = MEANING[".".join(map(str, loc))]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document, "title": "gateway.yaml"}


def markdown() -> str:
    """Write `docs/settings.md`."""
    return "\n".join([_INTRODUCTION, *_tables()]).replace("\n\n\n", "\n\n") + "\n"


def _tables() -> Iterator[str]:
    keys = [(loc, field) for loc, field in every_key() if not _has_keys(field)]
    yield from _heading("")
    yield from (_row(loc, field) for loc, field in keys if len(loc) == 1)
    for name in dict.fromkeys(str(loc[0]) for loc, _ in keys if len(loc) > 1):
        yield from _heading(name)
        yield from (_row(loc, field) for loc, field in keys if len(loc) > 1 and loc[0] == name)


def _heading(name: str) -> Iterator[str]:
    yield ""
    yield f"## `{name}`\n\n{MEANING[name]}" if name else "## The gateway"
    yield "\n| key | value | default | meaning |\n|---|---|---|---|"


def _row(loc: Loc, field: FieldInfo) -> str:
    name = ".".join(map(str, loc))
    cells = (f"`{name.replace('.[]', '[]')}`", _kind(field.annotation, field.metadata), _default(field), MEANING[name])
    return f"| {' | '.join(cells)} |"


def _has_keys(field: FieldInfo) -> bool:
    plain = plain_annotation(field.annotation)
    if get_origin(plain) in {dict, tuple}:
        plain = plain_annotation(next(reversed([part for part in get_args(plain) if part is not Ellipsis])))
    return isinstance(plain, type) and issubclass(plain, Section)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    plain = plain_annotation(annotation)
    if get_origin(plain) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(plain))
    if get_origin(plain) is tuple:
        return f"list of {_kind(get_args(plain)[0], [])}"
    if plain is int and any(getattr(rule, "func", None) is parse_size for rule in metadata):
        return "size"
    if get_origin(plain) in {types.UnionType}:
        return "network"
    names = {bool: "`true`, `false`", int: "number", float: "duration", str: "text", SecretStr: "secret"}
    return names.get(plain, {Address: "host:port", Path: "path", Rate: "rate"}.get(plain, "any"))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default == ():
        return "none"
    plain = plain_annotation(field.annotation)
    if plain is float:
        return f"`{_duration(field.default)}`"
    if _kind(field.annotation, field.metadata) == "size":
        return f"`{field.default // 1024} KiB`"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, tuple) and not isinstance(field.default, Address):
        return f"`[{', '.join(map(str, field.default))}]`"
    return f"`{field.default}`" if str(field.default) else "empty"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
