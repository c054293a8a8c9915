"""Texts in bodies, queries, headers and paths: the schema has their pattern, an error says it in words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Form:
    """Metadata of an annotated str: it must match the whole pattern; `words` complete the error."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern}

    def _checked(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text


WITHOUT_NUL = Form(r"^[^\x00]*$", "must not contain the character NUL")
SHA256 = Form(r"^[0-9a-f]{64}$", "must be a SHA-256: 64 digits of 0-9 and a-f")
