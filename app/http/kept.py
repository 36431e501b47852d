"""Answers that others may keep a copy of."""

from hashlib import sha256

from fastapi import Request, Response, status


def kept(request: Request, body: bytes, media_type: str, cache_control: str) -> Response:
    """The body with its tag, or that the asker has it already (RFC 9110 section 13.1.2)."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {"Cache-Control": cache_control, "ETag": tag}
    named = [each.strip() for each in ",".join(request.headers.getlist("if-none-match")).split(",")]
    if "*" in named or tag in {each.removeprefix("W/") for each in named}:
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type=media_type)
