"""JSON Schemas (draft 2020-12) of the files under `test_vectors/`; strict, no additional properties anywhere."""

from collections.abc import Iterable
from typing import Any

from poai_tools.vectors.model_kinds import GGUF, INTEGER_MODEL
from poai_tools.vectors.registry import Function

SLUG = "^[a-z0-9]+(-[a-z0-9]+)*$"
CODE = "^[a-z0-9-]+/[a-z0-9-]+$"
TEXT = {"type": "string", "minLength": 1}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def make_record(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def make_case_schemas(flags: Iterable[str]) -> dict[str, Any]:
    """Return the three forms of a case: `valid`, `negative` and `pending` (its model was never at hand)."""
    names = list(flags)
    common: dict[str, Any] = {
        "id": {"type": "string", "pattern": SLUG},
        "comment": TEXT,
        "flags": {"type": "array", "items": {"enum": names}, "uniqueItems": True} if names else {"const": []},
        "input": {"$ref": "#/$defs/input"},
    }
    negative = {
        "result": {"enum": ["invalid", "not-yet"]},
        "code": {"type": "string", "pattern": CODE},
        "base": {"type": "string", "pattern": SLUG},
        "defect": {"type": "array", "items": {"type": "string", "pattern": "^/"}, "minItems": 1, "uniqueItems": True},
    }
    return {
        "valid": make_record(common | {"result": {"const": "valid"}, "output": {"$ref": "#/$defs/output"}}),
        "negative": make_record(common | negative),
        "pending": make_record(common | {"result": {"const": "pending"}}),
    }


def make_file_schema(function: Function, flags: Iterable[str]) -> dict[str, Any]:
    """Return the schema of `test_vectors/SUITE/FUNCTION.json`."""
    flags = list(flags)
    forms = make_case_schemas(flags)
    flag = make_record({"why": TEXT, "effect": TEXT})
    document = make_record(
        {
            "format": {"const": 1},
            "suite": {"const": function.suite},
            "function": {"const": function.name},
            "page": {"const": function.page},
            "summary": TEXT,
            "derivation": TEXT,
            "flags": make_record(dict.fromkeys(flags, flag)),
            "cases": {"type": "array", "items": {"oneOf": [{"$ref": f"#/$defs/{form}"} for form in forms]}},
        }
    )
    definitions = forms | {"input": function.input.schema(), "output": function.output.schema()}
    return {"$schema": DRAFT, "title": f"{function.suite}/{function.name}"} | document | {"$defs": definitions}


def make_codes_schema() -> dict[str, Any]:
    """Return the schema of `test_vectors/codes.json`."""
    row = make_record(
        {
            "code": {"type": "string", "pattern": CODE},
            "class": {"enum": ["Invalid", "Malformed", "NotYet"]},
            "result": {"enum": ["invalid", "not-yet"]},
            "page": {"type": "string", "pattern": SLUG},
            "meaning": TEXT,
        }
    )
    document = make_record({"format": {"const": 1}, "codes": {"type": "array", "items": row}})
    return {"$schema": DRAFT, "title": "codes"} | document


def make_functions_schema() -> dict[str, Any]:
    """Return the schema of `test_vectors/functions.json`."""
    fields = {"type": "object", "additionalProperties": TEXT}
    row = make_record(
        {
            "suite": {"type": "string", "pattern": "^[a-z0-9_]+$"},
            "function": {"type": "string", "pattern": "^[a-z0-9_]+$"},
            "page": {"type": "string", "pattern": SLUG},
            "definitions": {"type": "array", "items": TEXT, "minItems": 1},
            "summary": TEXT,
            "input": fields,
            "output": fields,
        }
    )
    document = make_record({"format": {"const": 1}, "functions": {"type": "array", "items": row}})
    return {"$schema": DRAFT, "title": "functions"} | document


def make_nano_schema() -> dict[str, Any]:
    """Return the schema of `test_vectors/models/nano.json`."""
    document = make_record(
        {
            "format": {"const": 1},
            "name": {"const": "poai-nano"},
            "derivation": TEXT,
            "gguf": GGUF.schema(),
            "integer_model": INTEGER_MODEL.schema(),
        }
    )
    return {"$schema": DRAFT, "title": "models/nano"} | document
