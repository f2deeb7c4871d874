"""Start sagas, signal them, control them, publish domain events."""

from sagakit.client.client import Client as Client
from sagakit.client.client import Sent as Sent
from sagakit.client.composer import Composed as Composed
from sagakit.client.composer import Composer as Composer
