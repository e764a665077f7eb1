"""Bodies of the file routes."""

from typing import Annotated

from pydantic import BaseModel

from outgate.api.bodies import BODY_CONFIG
from outgate.api.field_types import said
from outgate.control.files import PATH_LENGTH_MAX

FilePath = Annotated[str, said(minLength=1, maxLength=PATH_LENGTH_MAX, pattern="^[^\\x00]+$")]


class DevboxReadFileContentsParams(BaseModel):
    """The file to read, relative to the user's home unless absolute."""

    model_config = BODY_CONFIG

    file_path: FilePath


class DevboxWriteFileContentsParams(BaseModel):
    """The file to write, relative to the user's home unless absolute, and all of its text."""

    model_config = BODY_CONFIG

    file_path: FilePath
    contents: str


class DevboxDownloadFileParams(BaseModel):
    """The file to download, relative to the user's home unless absolute."""

    model_config = BODY_CONFIG

    path: FilePath


class DevboxUploadFileParams(BaseModel):
    """A form: where the file goes, relative to the user's home unless absolute, and the file."""

    path: FilePath
    file: Annotated[str, said(format="binary")]
