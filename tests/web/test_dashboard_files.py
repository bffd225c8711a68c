"""How the files of the dashboard are sent: with their types, and closed to other pages. Needs no browser."""

from __future__ import annotations

from pathlib import Path

from draftd.web.dashboard import FILES
from tests.harness import fake, serving


async def test_the_page_is_closed_to_other_pages_and_to_anything_inline(tmp_path: Path) -> None:
    async with serving(tmp_path, {"a": fake()}) as served:
        for path, (_, kind) in FILES.items():
            answer = await served.get(path)
            assert answer.headers["Content-Type"].startswith(kind)
            policy = dict(
                part.split(maxsplit=1) for part in answer.headers["Content-Security-Policy"].split(";")
            )
            assert (policy.pop("default-src"), policy.pop("frame-ancestors")) == ("'none'", "'none'")
            assert set(policy.values()) == {"'self'", "'none'"}
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        foreign = {"Host": "evil.com"}
        assert (await served.get("/", headers=foreign)).status == 403
