import pytest

from server.specs.settings_prompt import CONDUCT, DEFAULT_PURPOSE, settings_prompt


def test_the_prompt_says_who_what_for_and_how():
    prompt = settings_prompt(name="Con", role="developer", description="Keeps it simple.")

    assert prompt == f"You are Con, a developer.\n\nKeeps it simple.\n\n{CONDUCT}"


@pytest.mark.parametrize("description", [None, ""])
def test_without_a_description_there_is_a_purpose(description: str | None):
    prompt = settings_prompt(name="Con", role="developer", description=description)

    assert prompt == f"You are Con, a developer.\n\n{DEFAULT_PURPOSE}\n\n{CONDUCT}"


@pytest.mark.parametrize(
    "word", ["helpful", "accurate", "proactive", "Ask", "unclear", "Confirm", "urgent"]
)
def test_the_conduct_says_how_to_behave(word: str):
    assert word in CONDUCT


@pytest.mark.parametrize(
    ("article", "role"),
    [
        *(("a", role) for role in ("developer", "Tester", "QA", "qa engineer", "UX designer", "ux writer")),
        *(("a", role) for role in ("UI designer", "ui developer", "user researcher", "PM", "product manager")),
        *(("a", role) for role in ("unit tester", "union rep", "European lawyer", "one-person army", "utility")),
        *(("a", role) for role in ("usability expert", "DBA", "CTO", "VP", "3D artist", "🦊", "DEVOPS lead")),
        *(("an", role) for role in ("engineer", "Architect", "operator", "SRE", "sre", "HR partner", "hr")),
        *(("an", role) for role in ("ML engineer", "ml engineer", "MLOps engineer", "AI", "SEO writer", "API owner")),
        *(("an", role) for role in ("X", "hourly worker", "honest broker", "heir", "uninstaller", "usher", "IT admin")),
        *(("an", role) for role in ("umbrella", "unimpressed critic", "NLP researcher", "LLM wrangler", "R&D lead")),
    ],
)  # fmt: skip
def test_the_article_is_that_of_the_spoken_word(article: str, role: str):
    prompt = settings_prompt(name="Con", role=role, description=None)

    assert prompt.startswith(f"You are Con, {article} {role}.")
