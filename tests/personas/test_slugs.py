import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.personas.slugs import slug_stem

LARGEST_KEY = 2**31 - 1


@pytest.mark.parametrize(
    ("role", "name", "stem"),
    [
        ("developer", "Con", "developer-con"),
        ("Release Manager", "Ada Lovelace", "release-manager-ada-lovelace"),
        ("developer", "../../etc", "developer-etc"),
        ("developer", "a/b", "developer-a-b"),
        ("developer", "C:\\x", "developer-c-x"),
        ("developer", "王芳", "developer-wangfang"),
        ("developer", "José Ñuñez", "developer-jose-nunez"),
        ("developer", "{{7*7}}", "developer-7-7"),
        ("c++", "🦊", "c-fox"),
        ("***", "---", "x-x"),
        ("developer", "x" * 100, "developer-" + "x" * 26),
        ("developer", "x" * 25 + " y", "developer-" + "x" * 25),
    ],
)
def test_a_stem_is_made_of_role_and_name(role: str, name: str, stem: str):
    assert slug_stem(role, name) == stem


@given(st.text(min_size=1, max_size=100), st.text(min_size=1, max_size=100))
def test_a_slug_is_a_legal_directory_and_agent_name_whatever_the_names_are(role: str, name: str):
    slug = f"{slug_stem(role, name)}-{LARGEST_KEY}"

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert len(slug) <= 64
