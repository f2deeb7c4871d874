"""The JSON Schema of a definition, for editors that complete and check while one types."""

import json
import sys
from typing import Any

from sagakit.language.document import Document


def definition_schema() -> str:
    """The schema as JSON text: made of the models that read a definition, so it cannot say anything else."""
    schema: dict[str, Any] = Document.model_json_schema(by_alias=True)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Saga definition",
    }
    return json.dumps(_without_defaults(schema), indent=2, ensure_ascii=False) + "\n"


def _without_defaults(schema: Any) -> Any:
    """Defaults are held as milliseconds and written as `5s`: they stand in the descriptions."""
    if isinstance(schema, list):
        return [_without_defaults(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_defaults(value) for key, value in schema.items() if key != "default"}


if __name__ == "__main__":
    sys.stdout.write(definition_schema())
