"""Loads the application that `--app shop:app` names."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

import segue
from segue.config import FILE, Config
from segue.errors import ConfigError, SegueError, UnknownFlow
from segue.model.app import App
from segue.model.flow import Flow
from segue.plan.graph import Plan

_HERE = str(Path(segue.__file__).parent)


def load(config: Config) -> App:
    """The configured application; its module is found in the current folder, beside `segue.toml`, or installed.

    Raises:
        ConfigError: None is configured, or it cannot be imported.
        DeclarationError: It is declared wrongly.
    """
    if not config.app:
        raise ConfigError("no application is named", f'give --app shop:app, or set app = "shop:app" in {FILE}')
    folders = [Path.cwd()]
    if config.file is not None and not config.origins["app"].startswith(("environment", "flag")):
        folders.append(config.file.parent)
    sys.path[:0] = [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
    name, _, attribute = config.app.partition(":")
    module = _import(name, folders)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"module {name!r} has no {attribute!r}", _apps_of(module))
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ConfigError(f"{config.app} is not an App but {type(found).__name__}", _apps_of(module))
    return found


def maybe(config: Config) -> App | None:
    """The application, if one is configured."""
    return load(config) if config.app else None


def flow_of(app: App, name: str) -> Flow[..., object]:
    """A flow of an application.

    Raises:
        UnknownFlow: It has none of this name.
    """
    if name not in app.flows:
        raise UnknownFlow(f"app {app.name!r} has no flow {name!r}", f"its flows: {', '.join(app.flows) or 'none'}")
    return app.flows[name]


def plan_of(flow: Flow[..., object]) -> Plan:
    """The plan of a flow.

    Raises:
        DeclarationError: The flow body does what cannot be compiled.
        ConfigError: The flow body raised something else.
    """
    try:
        return flow.plan
    except SegueError:
        raise
    except Exception as error:
        raise ConfigError(f"flow {flow.name!r} cannot be compiled: {_described(error)}", f"see {flow.site}") from error


def _import(name: str, folders: list[Path]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SegueError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            places = " and ".join(str(folder) for folder in dict.fromkeys(folders))
            raise ConfigError(
                f"there is no module {error.name!r}", f"looked in {places}, and among what is installed"
            ) from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> ConfigError:
    return ConfigError(f"module {name!r} cannot be imported: {_described(error)}", _line(error))


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _line(error: BaseException) -> str:
    """The last line of the user's own code that led to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"at {error.filename}:{error.lineno}: {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((_HERE, "<frozen", os.path.dirname(os.__file__)))
        or "site-packages" in frame.filename
    ]
    return f"at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""


def _apps_of(module: ModuleType) -> str:
    found = [f"{module.__name__}:{name}" for name, value in vars(module).items() if isinstance(value, App)]
    return f"apps there: {', '.join(found)}" if found else "no App is there; make one: app = App('shop', flows=[...])"
