"""One suite of behaviours for every schema registry: the one in memory, and a real one over HTTP."""

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from sagakit.adapters.confluent_registry import DENIAL_REMEMBERED_S, ConfluentRegistry
from sagakit.adapters.memory_registry import MemoryRegistry
from sagakit.contracts import own as own_module
from sagakit.contracts.codec import AvroCodec
from sagakit.contracts.errors import SchemaError, UndecodableError
from sagakit.contracts.own import OwnRecords
from sagakit.ports.registry import (
    IncompatibleSchemaError,
    RegistryUnavailableError,
    SchemaRegistry,
    UnknownSchemaError,
)
from sagakit.testing.registry import RealRegistry

NOBODYS_ID = 99_999_999


class Served(Protocol):
    url: str


@pytest.fixture(params=["memory", pytest.param("confluent", marks=pytest.mark.registry)])
def schemas(request: pytest.FixtureRequest) -> Iterator[SchemaRegistry]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    server: Served = request.getfixturevalue("registry")
    with ConfluentRegistry(server.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    """The full name of a record that no other test uses: the registry is shared."""
    return f"test{uuid.uuid4().hex}.Thing"


def record(name: str, *fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


NUMBER = {"name": "number", "type": "int"}
NEEDED = {"name": "needed", "type": "string"}
OPTIONAL = {"name": "optional", "type": ["null", "string"], "default": None}


def test_a_registered_schema_is_found_by_id_and_by_subject(schemas: SchemaRegistry, name: str) -> None:
    text = record(name, NUMBER)
    schema_id = schemas.register(name, text)
    assert schemas.register(name, text) == schema_id, "registering again changes nothing"
    assert json.loads(schemas.schema(schema_id)) == json.loads(text)
    assert schemas.schema_id(name, text) == schema_id
    assert [json.loads(one) for one in schemas.versions(name)] == [json.loads(text)]


def test_white_space_and_key_order_do_not_matter(schemas: SchemaRegistry, name: str) -> None:
    schema_id = schemas.register(name, record(name, NUMBER))
    other = json.dumps(dict(reversed(json.loads(record(name, NUMBER)).items())), indent=4)
    assert schemas.schema_id(name, other) == schema_id


def test_what_is_not_there_is_unknown(schemas: SchemaRegistry, name: str) -> None:
    assert schemas.versions(name) == ()
    with pytest.raises(UnknownSchemaError, match=str(NOBODYS_ID)):
        schemas.schema(NOBODYS_ID)
    with pytest.raises(UnknownSchemaError, match="sagakit schemas register"):
        schemas.schema_id(name, record(name, NUMBER))
    schemas.register(name, record(name, NUMBER))
    with pytest.raises(UnknownSchemaError, match="sagakit schemas register"):
        schemas.schema_id(name, record(name, NUMBER, OPTIONAL))
    with pytest.raises(UnknownSchemaError):
        schemas.schema_id(f"{name}Other", record(name, NUMBER))


def test_versions_come_oldest_first(schemas: SchemaRegistry, name: str) -> None:
    texts = [record(name, NUMBER), record(name, NUMBER, OPTIONAL), record(name, OPTIONAL)]
    for text in texts:
        schemas.register(name, text)
    assert [json.loads(one) for one in schemas.versions(name)] == [json.loads(one) for one in texts]


COMPATIBLE = [
    ("BACKWARD_TRANSITIVE", (NUMBER,), (NUMBER, OPTIONAL)),
    ("BACKWARD_TRANSITIVE", (NUMBER, NEEDED), (NUMBER,)),
    ("BACKWARD_TRANSITIVE", (NUMBER,), ({"name": "number", "type": "long"},)),
    ("FULL_TRANSITIVE", (NUMBER,), (NUMBER, OPTIONAL)),
    ("FULL_TRANSITIVE", (NUMBER, OPTIONAL), (NUMBER,)),
    ("NONE", (NUMBER,), (NEEDED,)),
]

INCOMPATIBLE = [
    ("BACKWARD_TRANSITIVE", (NUMBER,), (NUMBER, NEEDED)),
    ("BACKWARD_TRANSITIVE", (NUMBER,), ({"name": "number", "type": "string"},)),
    ("FULL_TRANSITIVE", (NUMBER, NEEDED), (NUMBER,)),
    ("FULL_TRANSITIVE", (NUMBER,), ({"name": "number", "type": "long"},)),
    ("FORWARD_TRANSITIVE", (NUMBER, NEEDED), (NUMBER,)),
]


@pytest.mark.parametrize(("level", "before", "after"), COMPATIBLE)
def test_a_compatible_schema_is_taken(
    level: str, before: tuple[Any, ...], after: tuple[Any, ...], schemas: SchemaRegistry, name: str
) -> None:
    schemas.register(name, record(name, *before))
    schemas.set_compatibility(name, level)
    schemas.register(name, record(name, *after))
    assert len(schemas.versions(name)) == 2


@pytest.mark.parametrize(("level", "before", "after"), INCOMPATIBLE)
def test_an_incompatible_schema_is_refused(
    level: str, before: tuple[Any, ...], after: tuple[Any, ...], schemas: SchemaRegistry, name: str
) -> None:
    schemas.register(name, record(name, *before))
    schemas.set_compatibility(name, level)
    with pytest.raises(IncompatibleSchemaError, match=name):
        schemas.register(name, record(name, *after))
    assert len(schemas.versions(name)) == 1


def test_a_transitive_level_looks_at_every_version(schemas: SchemaRegistry, name: str) -> None:
    schemas.set_compatibility(name, "BACKWARD_TRANSITIVE")
    schemas.register(name, record(name, NUMBER, NEEDED))
    schemas.register(name, record(name, NUMBER))
    later = {"name": "needed", "type": "int", "default": 0}
    with pytest.raises(IncompatibleSchemaError):
        schemas.register(name, record(name, NUMBER, later))


@pytest.mark.parametrize("text", ["nonsense", '{"type":"recor"}', "{}"])
def test_what_is_no_schema_is_not_taken(text: str, schemas: SchemaRegistry, name: str) -> None:
    with pytest.raises(SchemaError):
        schemas.register(name, text)


def test_an_unknown_level_is_refused(schemas: SchemaRegistry, name: str) -> None:
    schemas.register(name, record(name, NUMBER))
    with pytest.raises(SchemaError, match="FULL_TRANSITIVE"):
        schemas.set_compatibility(name, "SOMEHOW")


def test_our_own_records_and_a_codec_work_on_it(schemas: SchemaRegistry, name: str) -> None:
    writing = OwnRecords(schemas, register=True)
    writing.prepare(["Expired", "Rejected"])
    reading = OwnRecords(schemas)
    value = writing.encode("Rejected", {"code": "NO", "message": None, "details": {"a": "b"}})
    assert reading.decode(value).fields == {"code": "NO", "message": None, "details": {"a": "b"}}
    schemas.register(name, record(name, NUMBER))
    codec = AvroCodec(schemas)
    framed = codec.encode(codec.compile_schema(record(name, NUMBER)), {"number": 5})
    assert AvroCodec(schemas).decode(framed).data == {"number": 5}
    with pytest.raises(UndecodableError, match=str(NOBODYS_ID)):
        codec.decode(b"\0" + NOBODYS_ID.to_bytes(4, "big"))


def test_nothing_is_registered_unasked(schemas: SchemaRegistry, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    texts = {f"sagakit.{name.replace('.', '')}": record(f"sagakit.{name.replace('.', '')}", NUMBER)}
    monkeypatch.setattr(own_module, "own_schemas", lambda: texts)
    (subject,) = texts
    with pytest.raises(UnknownSchemaError, match="sagakit schemas register"):
        OwnRecords(schemas).prepare()
    assert schemas.versions(subject) == ()


# Over HTTP only ------------------------------------------------------------------------------------------------------


@pytest.mark.registry
def test_references_are_put_in(registry: RealRegistry, name: str) -> None:
    inner, middle = f"{name}Inner", f"{name}Middle"
    used = [SchemaReference(inner, inner, 1), SchemaReference(middle, middle, 1)]
    with SchemaRegistryClient({"url": registry.url}) as client, ConfluentRegistry(registry.url) as reader:
        client.register_schema(inner, Schema(record(inner, NUMBER), "AVRO"))
        text = record(middle, {"name": "inner", "type": inner})
        client.register_schema(middle, Schema(text, "AVRO", used[:1]))
        text = record(name, {"name": "a", "type": middle}, {"name": "b", "type": inner})
        schema_id = client.register_schema(name, Schema(text, "AVRO", used))
        value = b"\0" + schema_id.to_bytes(4, "big") + b"\2\4"
        assert AvroCodec(reader).decode(value).data == {"a": {"inner": {"number": 1}}, "b": {"number": 2}}


class Scripted:
    """A server that gives one answer to everything, and counts."""

    def __init__(self, status: int, body: bytes, port: int = 0) -> None:
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.status, self.body = status, body
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, b"<html>not here</html>", "is the URL right"),
        (404, b'{"error_code": 0, "message": "no such path"}', "is the URL right"),
        (401, b'{"error_code": 40101, "message": "who are you"}', "credentials"),
        (403, b'{"error_code": 40301, "message": "not you"}', "credentials"),
        (400, b'{"error_code": 400, "message": "what"}', "what"),
        (500, b'{"error_code": 50001, "message": "store is away"}', "store is away"),
        (503, b"", "503"),
        (200, b"<html>a proxy's page</html>", "Confluent API"),
    ],
)
def test_no_answer_of_a_registry_is_never_a_denial(status: int, body: bytes, says: str) -> None:
    """Rule 10: a registry that is away makes no poison."""
    with (
        Scripted(status, body) as server,
        ConfluentRegistry(server.url) as registry,
        pytest.raises(RegistryUnavailableError, match=says),
    ):
        registry.schema(5)


def test_a_registry_that_goes_away_and_comes_back() -> None:
    text = record("test.Thing", NUMBER)
    answer = json.dumps({"id": 7, "version": 1, "subject": "test.Thing", "schema": text}).encode()
    value = b"\0\0\0\0\7\2"
    with Scripted(200, answer) as server:
        known = ConfluentRegistry(server.url)
        codec = AvroCodec(known)
        assert codec.encode(codec.compile_schema(text), {"number": 1}) == value
    fresh = ConfluentRegistry(server.url)
    with known, fresh:
        for ask in (
            lambda: fresh.schema(7),
            lambda: fresh.schema_id("test.Thing", text),
            lambda: fresh.versions("test.Thing"),
            lambda: fresh.register("test.Thing", text),
            lambda: fresh.set_compatibility("test.Thing", "FULL"),
            lambda: AvroCodec(fresh).decode(value),
        ):
            with pytest.raises(RegistryUnavailableError, match="does not answer"):
                ask()
        assert codec.decode(value).data == {"number": 1}, "a known id needs no registry"
        with Scripted(200, answer, server.port):
            assert AvroCodec(fresh).decode(value).data == {"number": 1}


def test_a_blip_is_tried_over_and_a_denial_remembered_for_a_moment() -> None:
    with Scripted(503, b"") as server, ConfluentRegistry(server.url) as registry:
        with pytest.raises(RegistryUnavailableError):
            registry.schema(5)
        assert server.asked == 3
    now = 100.0
    denial = b'{"error_code": 40403, "message": "Schema not found"}'
    with Scripted(404, denial) as server, ConfluentRegistry(server.url, clock=lambda: now) as registry:
        for _ in range(3):
            with pytest.raises(UnknownSchemaError):
                registry.schema(5)
        assert server.asked == 1, "many records may name one wrong id"
        now += DENIAL_REMEMBERED_S
        server.status, server.body = 200, json.dumps({"schema": record("test.Thing", NUMBER)}).encode()
        assert json.loads(registry.schema(5))["name"] == "test.Thing"


@pytest.mark.parametrize(
    "properties", [{"no.such.property": "x"}, {"timeout": "soon"}, {"basic.auth.user.info": "no-colon"}]
)
def test_properties_that_the_client_does_not_know_are_errors(properties: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="schema registry's propert"):
        ConfluentRegistry("http://127.0.0.1:1", properties)


def test_properties_may_be_text_and_credentials_are_not_shown() -> None:
    properties = {"timeout": "0.5", "max.retries": "0"}
    registry = ConfluentRegistry("http://user:secret@127.0.0.1:1", properties)
    with registry, pytest.raises(RegistryUnavailableError, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        registry.schema(1)
    assert "secret" not in str(caught.value)
