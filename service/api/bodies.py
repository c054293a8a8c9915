"""Read a request's body and decode it into samples."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from starlette.types import Receive, Scope

from models.coding import Coder
from models.spec import ModelSpec
from service.execution.threads import INLINE_BYTES, Threads
from service.inference.decoding import Decoder, Samples, media_types, samples_of, unsupported
from service.media_types import MULTIPART, plain
from service.web.bodies import PIECE_BYTES, content_coding, header, pieces, read_body
from service.web.compression import Inflating, inflate
from service.web.multipart import fields, files

_WAY_OUT = "raise TORCHLOOP_MAX_CHECKPOINT_BYTES, or save half precision (tensor.half())"


class RequestBodies:
    """Reads request bodies of at most `max_bytes` bytes, and decodes them; checkpoints have a separate limit."""

    def __init__(self, max_bytes: int, max_checkpoint_bytes: int, decoder: Decoder, threads: Threads) -> None:
        self.max_bytes = max_bytes
        self._max_checkpoint_bytes = max_checkpoint_bytes
        self._decoder = decoder
        self._threads = threads

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body with its Content-Encoding removed; the size limit applies to the result, too.

        Raises Malformed, TooLarge, UnsupportedMediaType, and ClientDisconnect if the client has disconnected.
        """
        coding = content_coding(scope)
        body = await read_body(scope, receive, self.max_bytes)
        return body if coding is None else await self._threads.run(partial(inflate, body, coding, self.max_bytes))

    def checkpoint(self, scope: Scope, receive: Receive) -> AsyncGenerator[bytes, None]:
        """Yield the body of a checkpoint, as `streamed` does."""
        return self.streamed(scope, receive, self._max_checkpoint_bytes, _WAY_OUT)

    async def streamed(self, scope: Scope, receive: Receive, limit: int, way_out: str) -> AsyncGenerator[bytes, None]:
        """Yield the body with its Content-Encoding removed, in pieces; `limit` applies to the result, too.

        Raises as `read` does; TooLarge says the way out.
        """
        coding = content_coding(scope)
        async with aclosing(pieces(scope, receive, limit, way_out)) as arriving:
            if coding is None:
                async for piece in arriving:
                    yield piece
                return
            stream = Inflating(coding, limit, way_out)
            async for piece in arriving:
                stream.add(piece)
                while inflated := await self._threads.run(partial(stream.read, PIECE_BYTES)):
                    yield inflated
            stream.end()

    async def samples(self, scope: Scope, receive: Receive, spec: ModelSpec, coder: Coder | None = None) -> Samples:
        """Read and decode the body of a request.

        Raises UnsupportedMediaType, TooLarge, Malformed, or the InvalidInput of a body without a good sample.
        """
        decode = self.decoder_for(scope, spec, coder)
        return await decode(await self.read(scope, receive))

    def decoder_for(
        self, scope: Scope, spec: ModelSpec, coder: Coder | None = None, *, segment: bool = False
    ) -> Callable[[bytes], Awaitable[Samples]]:
        """Return the function that decodes this request's body. Raises UnsupportedMediaType, before the body is read,
        and Invalid if the samples in a picture are asked for, by `segment`, and there is none or the model cannot.

        `coder` is that of the version that will answer; only models with named inputs need it. The function raises
        Malformed, or the InvalidInput of a body without a good sample.
        """
        content_type = header(scope, b"content-type").decode("latin-1")
        media_type = plain(content_type)
        if segment:
            self._decoder.require_segments(media_type, spec)
            return partial(self._decoder.segments, spec)
        if self._decoder.accepts(media_type, spec):
            return partial(self._decoder.decode, media_type, spec, coder=coder)
        if media_type == MULTIPART and MULTIPART in media_types(spec):
            return partial(self._form, content_type, spec, coder)
        raise unsupported(media_type, spec)

    def inline_decoder_for(
        self, content_type: str, spec: ModelSpec, size: int
    ) -> Callable[[bytes], Samples | None] | None:
        """Return the function that decodes a small body of a plain model on the event loop; None if there is none.

        The function returns None for pictures that need a thread, and raises what that of `decoder_for` raises.
        """
        media_type = plain(content_type)
        if size > self.max_bytes:
            return None
        if self._decoder.decodes_inline(media_type, spec, size):
            return partial(self._decoder.decode_inline, media_type, spec)
        if media_type == MULTIPART and spec.picture is not None and size <= INLINE_BYTES:
            return partial(self._small_form, content_type, spec)
        return None

    async def _form(self, content_type: str, spec: ModelSpec, coder: Coder | None, body: bytes) -> Samples:
        if coder is not None and spec.inputs:
            return await self._decoder.form(fields(content_type, body), coder)
        entries = await self._decoder.pictures(files(content_type, body), spec)
        return await self._threads.run_if_large(entries.good.nbytes, partial(samples_of, spec, entries))

    def _small_form(self, content_type: str, spec: ModelSpec, body: bytes) -> Samples | None:
        entries = self._decoder.pictures_inline(files(content_type, body), spec)
        return None if entries is None else samples_of(spec, entries)
