"""`/openapi.json` and `/docs`."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from forebay.api.answer import json_answer
from forebay.api.deps import get_reader

CDN = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
# The digests are those of the files in the npm package of this version; a browser runs nothing else.
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Forebay</title>
<link rel="stylesheet" href="{CDN}/swagger-ui.css" crossorigin="anonymous"
  integrity="sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{CDN}/swagger-ui-bundle.js" crossorigin="anonymous"
  integrity="sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"></script>
<script>
SwaggerUIBundle({{url: '@@/openapi.json', dom_id: '#swagger-ui', deepLinking: true}})
</script>
</body>
</html>
"""

router = APIRouter(dependencies=[Depends(get_reader)], include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    return json_answer(request.app.openapi())


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI, whose scripts come from its public CDN."""
    root = request.scope.get("root_path", "").rstrip("/")
    return HTMLResponse(PAGE.replace("@@", root))
