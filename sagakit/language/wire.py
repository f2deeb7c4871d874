"""The wire form of a checked CEL expression, as the official runtime serializes it.

The runtime serializes a checked expression as the message `cel.expr.CheckedExpr` of the CEL specification
(github.com/google/cel-spec, proto/cel/expr/checked.proto and syntax.proto). No package ships these descriptors for
Python, so the part that is read here is declared below. `source_info.positions` gives each node its offset in the text.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from google.protobuf import any_pb2, descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

_PACKAGE: Final = "cel.expr"
_KINDS: Final = {"bool": 8, "bytes": 12, "double": 1, "int32": 5, "int64": 3, "string": 9, "uint64": 4}
ONEOF: Final = "kind"

# Message → its fields as `name:number:type`; `*` repeated, `|` member of the message's oneof, `%` map from int64.
_MESSAGES: Final[Mapping[str, str]] = {
    "Expr": "id:2:int64 |const:3:Constant |ident:4:Ident |select:5:Select |call:6:Call |list:7:List "
    "|struct:8:Struct |comprehension:9:Comprehension",
    "Constant": "|null:1:int64 |bool:2:bool |int64:3:int64 |uint64:4:uint64 |double:5:double |string:6:string "
    "|bytes:7:bytes",
    "Ident": "name:1:string",
    "Select": "operand:1:Expr field:2:string test_only:3:bool",
    "Call": "target:1:Expr function:2:string *args:3:Expr",
    "List": "*elements:1:Expr *optional_indices:2:int32",
    "Struct": "message_name:1:string *entries:2:Entry",
    "Entry": "id:1:int64 |field_key:2:string |map_key:3:Expr value:4:Expr optional_entry:5:bool",
    "Comprehension": "iter_var:1:string iter_range:2:Expr accu_var:3:string accu_init:4:Expr loop_condition:5:Expr "
    "loop_step:6:Expr result:7:Expr iter_var2:8:string",
    "Type": "|dyn:1:Empty |null:2:int64 |primitive:3:int64 |wrapper:4:int64 |well_known:5:int64 |list_type:6:ListType "
    "|map_type:7:MapType |message_type:9:string |type:11:Empty",
    "Empty": "",
    "ListType": "elem:1:Type",
    "MapType": "key:1:Type value:2:Type",
    "SourceInfo": "%positions:4:int32",
    "CheckedExpr": "%type_map:3:Type expr:4:Expr source_info:5:SourceInfo",
}


def _checked_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="sagakit_cel.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            label, number, kind = text.split(":")
            field_name = label.lstrip("*|%")
            if label.startswith("|") and not message.oneof_decl:
                message.oneof_decl.add(name=ONEOF)
            if label.startswith("%"):
                entry = message.nested_type.add(name=f"{field_name.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _declare(entry, "key", 1, "int64")
                _declare(entry, "value", 2, kind)
                kind = f"{name}.{entry.name}"
            field = _declare(message, field_name, int(number), kind)
            if label[0] in "*%":
                field.label = field.LABEL_REPEATED
            if label.startswith("|"):
                field.oneof_index = 0
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


def _declare(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str
) -> descriptor_pb2.FieldDescriptorProto:
    field = message.field.add(name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind in _KINDS:
        field.type = _KINDS[kind]  # type: ignore[assignment]  # the numbers of TYPE_BOOL and so on
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    return field


_CHECKED: Final[Any] = _checked_class()

Checked: TypeAlias = Any
"""A `cel.expr.CheckedExpr`: its class is made at import, so the type checker cannot know it."""


def read(serialized: bytes) -> Checked:
    """The message that the runtime serialized.

    Raises:
        ValueError: it is nested deeper than protobuf reads, as comprehensions within each other soon are.
    """
    envelope = any_pb2.Any()
    envelope.ParseFromString(serialized)
    checked = _CHECKED()
    try:
        checked.ParseFromString(envelope.value)
    except DecodeError as too_deep:
        raise ValueError("the expression is nested too deeply") from too_deep
    return checked


def write(checked: Checked) -> bytes:
    """What the runtime deserializes. Fields that are not declared here are kept as they came."""
    envelope = any_pb2.Any(type_url=f"type.googleapis.com/{_PACKAGE}.CheckedExpr", value=checked.SerializeToString())
    return envelope.SerializeToString()
