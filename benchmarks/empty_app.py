"""What all ratios refer to: a FastAPI form endpoint that does nothing, under the same server."""

from typing import Annotated

from fastapi import FastAPI, Form

app = FastAPI(openapi_url=None)


@app.post("/empty")
async def empty(refresh_token: Annotated[str, Form()]) -> dict[str, int]:
    return {"length": len(refresh_token)}
