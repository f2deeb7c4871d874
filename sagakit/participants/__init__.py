"""Participants: services that handle commands, undo them, and react to domain events."""

from sagakit.participants.context import Context as Context
from sagakit.participants.context import EventContext as EventContext
from sagakit.participants.exchange import Formats as Formats
from sagakit.participants.exchange import ServiceExchange as ServiceExchange
from sagakit.participants.runtime import HandlersStuckError as HandlersStuckError
from sagakit.participants.runtime import RuntimeSettings as RuntimeSettings
from sagakit.participants.runtime import ServiceRuntime as ServiceRuntime
from sagakit.participants.service import HandlerError as HandlerError
from sagakit.participants.service import Rejected as Rejected
from sagakit.participants.service import Service as Service
