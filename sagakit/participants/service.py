"""A participant as it is declared: a service and its handlers, found by their annotations."""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar, get_type_hints, overload

from pydantic import BaseModel

from sagakit.participants.context import Context, EventContext

RECORD: Final = "__avro_record__"
"""The class attribution by which a pydantic model says which Avro record it stands for."""


class HandlerError(TypeError):
    """A handler is declared in a way that cannot work; the message says which, why, and how it should read."""


class Rejected(Exception):
    """The command is refused for a business reason. It had no effect, and asking again would change nothing.

    `code` is what the saga definition lists under `rejects` (`OUT_OF_STOCK`); `message` is for people; `details` are
    text by name, recorded with the rejection.
    """

    def __init__(self, code: str, message: str = "", details: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.details = dict(details or {})


class Kind(Enum):
    """What a handler is for."""

    COMMAND = "command"
    COMPENSATION = "compensation"
    EVENT = "event"


Function: TypeAlias = Callable[..., Any]
FunctionT = TypeVar("FunctionT", bound=Function)
CommandFunction: TypeAlias = Callable[..., BaseModel] | Callable[..., Coroutine[Any, Any, BaseModel]]
CommandFunctionT = TypeVar("CommandFunctionT", bound=CommandFunction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One handler: the function, what it takes and gives, and how to call it.

    `message_parameter` and `context_parameter` are the names of its parameters; the latter is None where it takes no
    context. `reply` is None for events. `topic` (events only) is the topic's name without the prefix.
    """

    kind: Kind
    function: Function
    name: str
    record: str
    model: type[BaseModel]
    message_parameter: str
    context_parameter: str | None
    reply: type[BaseModel] | None
    is_async: bool
    topic: str | None

    def call(self, message: BaseModel, context: Context | EventContext) -> Any:
        """Call the function; an async one gives its coroutine."""
        if self.context_parameter is None:
            return self.function(**{self.message_parameter: message})
        return self.function(**{self.message_parameter: message, self.context_parameter: context})


@dataclass(slots=True)
class Service:
    """A participant: `payments = Service("payments", owner="team-payments")`, with handlers attached by its decorators.

    `name` stands before its topics (`payments.commands`); `owner` is who is called when it fails.
    """

    name: str
    owner: str = field(default="", kw_only=True)
    commands: dict[str, Handler] = field(default_factory=dict, init=False)
    """Command and compensation handlers by the full name of the record that they take."""
    events: dict[tuple[str, str], Handler] = field(default_factory=dict, init=False)
    """Event handlers by topic (without the prefix) and full name of the record."""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All handlers, commands first."""
        return (*self.commands.values(), *self.events.values())

    @property
    def event_topics(self) -> tuple[str, ...]:
        """The topics (without the prefix) whose events this service handles."""
        return tuple(dict.fromkeys(topic for topic, _ in self.events))

    @overload
    def command(self, function: CommandFunctionT) -> CommandFunctionT: ...
    @overload
    def command(self) -> Callable[[CommandFunctionT], CommandFunctionT]: ...
    def command(self, function: CommandFunctionT | None = None) -> Any:
        """Handle a command: take its record and, if you like, a `Context`; return the reply's record.

        Raises:
            HandlerError: if the annotations do not say which record, or the record has a handler already.
        """
        return self._declare(Kind.COMMAND, function)

    @overload
    def compensation(self, function: CommandFunctionT) -> CommandFunctionT: ...
    @overload
    def compensation(self) -> Callable[[CommandFunctionT], CommandFunctionT]: ...
    def compensation(self, function: CommandFunctionT | None = None) -> Any:
        """Handle a command that undoes a step (`ctx.undoes`), also when there is nothing to undo; else as `command`.

        Raises:
            HandlerError: if the annotations do not say which record, or the record has a handler already.
        """
        return self._declare(Kind.COMPENSATION, function)

    def event(self, topic: str) -> Callable[[FunctionT], FunctionT]:
        """Handle a domain event of `topic` (`orders.events`, without the prefix). Each comes at least once.

        Raises:
            HandlerError: if the annotations do not say which record, or the record has a handler for this topic
            already.
        """
        if callable(topic) or not topic:
            raise HandlerError(f'{self.name}: @{self.name}.event needs the topic: @{self.name}.event("orders.events")')

        def decorate(function: FunctionT) -> FunctionT:
            handler = _read(self.name, Kind.EVENT, function, topic)
            if (topic, handler.record) in self.events:
                other = self.events[topic, handler.record].name
                raise HandlerError(f"{self.name}: {handler.name} and {other} both handle {handler.record} of {topic}")
            self.events[topic, handler.record] = handler
            return function

        return decorate

    def _declare(self, kind: Kind, function: Function | None) -> Any:
        def decorate(function: Function) -> Function:
            handler = _read(self.name, kind, function, None)
            if handler.record in self.commands:
                other = self.commands[handler.record].name
                raise HandlerError(
                    f"{self.name}: {handler.name} and {other} both handle {handler.record}; a command has one handler"
                )
            self.commands[handler.record] = handler
            return function

        return decorate if function is None else decorate(function)


def record_name(model: type[BaseModel]) -> str | None:
    """The full name of the Avro record that a model stands for; None if it does not say."""
    name = getattr(model, RECORD, None)
    return name if isinstance(name, str) else None


def _read(service: str, kind: Kind, function: Function, topic: str | None) -> Handler:
    """What the annotations of `function` say."""
    name = getattr(function, "__qualname__", repr(function))
    where = f"{service}: the handler {name}"
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise HandlerError(f"{where} has an annotation that cannot be found: {error}") from error
    context_type = EventContext if kind is Kind.EVENT else Context
    message_parameter, context_parameter = None, None
    model: type[BaseModel] | None = None
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is context_type and context_parameter is None:
            context_parameter = parameter.name
        elif inspect.isclass(hint) and issubclass(hint, BaseModel) and model is None:
            message_parameter, model = parameter.name, hint
        elif parameter.default is inspect.Parameter.empty:
            raise HandlerError(
                f"{where} has a parameter {parameter.name!r} of type {hint!r}; a handler takes one record "
                f"model and, if it likes, one {context_type.__name__}, both annotated"
            )
    if model is None or message_parameter is None:
        raise HandlerError(f"{where} takes no record: annotate one parameter with the model of the record it handles")
    record = _record_of(where, model)
    reply = None
    if kind is not Kind.EVENT:
        hint = hints.get("return")
        if not (inspect.isclass(hint) and issubclass(hint, BaseModel)):
            raise HandlerError(
                f"{where} must return the model of its reply's record, and be annotated with it, not {hint!r}"
            )
        _record_of(where, hint)
        reply = hint
    return Handler(
        kind=kind,
        function=function,
        name=name,
        record=record,
        model=model,
        message_parameter=message_parameter,
        context_parameter=context_parameter,
        reply=reply,
        is_async=inspect.iscoroutinefunction(function),
        topic=topic,
    )


def _record_of(where: str, model: type[BaseModel]) -> str:
    name = record_name(model)
    if name is None:
        raise HandlerError(
            f"{where}: the model {model.__name__} does not say which Avro record it is. Generate it from the "
            f'schema, or set {RECORD}: ClassVar[str] = "<namespace>.<name>"'
        )
    return name
