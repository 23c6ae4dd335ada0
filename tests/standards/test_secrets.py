import random
import string
from pathlib import Path

import pytest
from dirty_equals import IsStr
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from server.standards.secrets import Secret, find_secrets

REPOSITORY = Path(__file__).parents[2]
DIGITS = string.digits
UPPER = string.ascii_uppercase + DIGITS
LETTERS = string.ascii_letters + DIGITS
HEX = "0123456789abcdef"
# Put together here, like all that is found below, so that no scanner takes this file for a leak.
WORD = "sword" + "fish"
CHOSEN = WORD + "7"

# Where `{}` is a value, as people write it in Markdown.
NOTATIONS = (
    "password: {}",
    "  db_password: {}",
    'password: "{}"',
    "- password: '{}'  # staging",
    "**Password:** {}",
    "* __Token__: `{}`",
    "Password (staging): {}",
    "The password for staging: {}",
    "The API key is `{}`.",
    "DB_PASSWORD={}",
    "export GITHUB_TOKEN='{}'",
    "API_KEY_2={} ./run.sh",
    "SECRET_KEY_PROD = '{}'",
    '{{"password": "{}"}}',
    '{{"db": {{"client_secret":"{}","user":"me"}}}}',
    'text = "{{\\"password\\": \\"{}\\"}}"',
    "password = '{}'",
    'password: str = "{}"',
    'const apiKey: string = "{}";',
    'var dbPass = "{}"',
    'token := "{}"',
    "'secret' => '{}',",
    'os.environ["TOKEN"] = "{}"',
    'connect(user="me", password="{}")',
    'os.getenv("TOKEN", "{}")',
    'client.setToken("{}")',
    'if password == "{}":',
    "mysql --password={} shop",
    "tool --api-key {} list",
    "curl -u me:{} https://a.test",
    "curl --user 'me:{}' https://a.test",
    "postgres://me:{}@db/shop",
    "redis://:{}@cache:6379/0",
    "Server=db;User Id=me;Password={};Encrypt=true",
    "AccountName=me;AccountKey={};EndpointSuffix=a.test",
    "https://a.test/?access_token={}&page=2",
    "Authorization: Bearer {}",
    "curl -H 'Authorization: Token {}' https://a.test",
    '"Authorization": "Basic {}"',
    "X-Api-Key: {}",
    "| password | {} |",
    "| `API_TOKEN` | `{}` | for staging |",
    "| user | password |\n|---|:-:|\n| me | {} |",
    "<password>{}</password>",
    "CREATE USER me WITH PASSWORD '{}';",
    "ALTER USER me IDENTIFIED BY '{}';",
    "password:\n  {}",
    "password: >-\n  {}",
    'token = (\n    "{}"\n)',
    "The password:\n\n```\n{}\n```",
)
PLACEHOLDERS = (
    *("$DATABASE_URL", "${TOKEN}", "${TOKEN:-none}", "$(cat token)", "<token>", "<your token>"),
    *("{{ token }}", "{{token}}", "{token}", "%TOKEN%", "%(token)s", "#{token}", "__TOKEN__"),
    *("xxxx", "XXXXXXXX", "xxxx-xxxx-xxxx", "****", "********", "...", "…", "••••", "[REDACTED]"),
    *("your-api-key", "YOUR_TOKEN_HERE", "my-secret-token", "example-key-1", "placeholder"),
    *("changeme", "change-me", "CHANGE_ME", "replace-with-token", "password", "secret", "string"),
    *("", "null", "None", "nil", "true", "undefined", "required", "redacted"),
    *("{{ vault.db1.password }}", "${{ secrets.DB_PASSWORD }}", "@@TOKEN@@", "insert token here"),
)
# With a body that is drawn in the place of `{}`.
KEYS = (
    ("an AWS access key", "AKIA{}", UPPER, 16),
    ("a GitHub token", "ghp_{}", LETTERS, 36),
    ("a GitHub token", "github_pat_{}", LETTERS, 82),
    ("a GitLab token", "glpat-{}", LETTERS, 20),
    ("a Slack token", "xoxb-{}", LETTERS, 40),
    ("a webhook", "https://hooks.slack.com/services/{}", LETTERS, 40),
    ("a webhook", "https://discord.com/api/webhooks/1234567890/{}", LETTERS, 68),
    ("a Stripe key", "sk_live_{}", LETTERS, 24),
    ("a Google key", "AIza{}", LETTERS, 35),
    ("an API key", "sk-{}", LETTERS, 48),
    ("an API key", "sk-ant-api03-{}", LETTERS, 93),
    ("an API key", "sk-or-v1-{}", HEX, 64),
    ("a package registry token", "npm_{}", LETTERS, 36),
    ("a package registry token", "pypi-{}", LETTERS, 150),
    ("a JSON Web Token", "eyJ{0}.{0}.{0}", LETTERS, 30),
    ("an access token", "SG.{0}.{0}", LETTERS, 30),
    ("an access token", "hvs.{}", LETTERS, 24),
    ("a private key", "AGE-SECRET-KEY-1{}", UPPER, 58),
    ("a signature of a URL", "https://a.test/x?se=2030&sig={}", LETTERS, 43),
    ("a random-looking text", "{}", LETTERS, 40),
    ("a random-looking text", "{}", HEX, 32),
    ("a random-looking text", "{}==", LETTERS, 22),
)
HASH = random.Random(0).randbytes(20).hex()
DIGEST = random.Random(0).randbytes(32).hex()
HARMLESS = (
    # References and placeholders.
    "Vault at $VAULT_ADDR/secrets/db",
    "read the password from the vault",
    "password: op://vault/db1/password",
    "secret: vault:secret/data/db1#password",
    "secret: arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-Ab12Cd",
    "DB_PASSWORD=/run/secrets/db_password1",
    "token: ./secrets/token1.txt",
    "DB_PASSWORD_FILE: /run/secrets/db1",
    "Authorization: Bearer $TOKEN",
    "postgres://user:password@host/db",
    "postgresql+psycopg://{user}:{password}@{host}/db",
    "https://a.test:8443/x?u=me@a.test",
    'curl -u "$USER:$PASS" https://a.test',
    "secretKeyRef:\n  name: db-credentials\n  key: password1",
    "- name: DB_PASSWORD\n  value: $(PASSWORD)",
    # Prose.
    "Password: at least 12 characters",
    "Password:\n\n- at least 12 characters\n- no reuse",
    "token: a JWT that expires in an hour",
    "Token: RS256 signed, 15 minutes",
    "Token: OAuth2.0 access token",
    "token: ISO27001 compliant",
    "token: base64url-encoded",
    "password: argon2id",
    "The token is 32 bytes of randomness.",
    "## Password: rotation every 90 days",
    "Never log `password`, `token` or `api_key`; never pass --password on the command line.",
    "Bearer authentication (RFC 6750)",
    "Authorization: RBAC with policies",
    "| password | string | at least 12 characters |",
    "| Token | Lifetime |\n|---|---|\n| access_token | 15min |\n\n| a | b1234567 |",
    # Code.
    "password: str = Field(min_length=12)",
    "def log_in(name: str, password: SecretStr) -> None:",
    'token = os.environ["TOKEN2"]',
    'token = os.getenv("API_TOKEN_1")',
    "token = secrets.token_urlsafe(32)",
    "const token = process.env.GITHUB_TOKEN_2;",
    "const token = await getToken2(user);",
    "password=settings.db2.password",
    "connect(password=password)",
    "token: [u8; 32],",
    "WHERE password = :password2",
    "MAX_TOKEN=4096",
    'errors = {"password": "This field is required."}',
    "password:\n  type: string\n  minLength: 12",
    "password_min_length: 12",
    '<input type="password" name="password" minlength="12">',
    "background: #ff00aa url(data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUA)",
    "docker run --user 1000:1000 image",
    # Long, but known.
    HASH,
    f"https://a.test/blob/{HASH}/x.py",
    f"image@sha256:{DIGEST}",
    f"The commit {DIGEST} is signed.",
    "id: 123e4567-e89b-12d3-a456-426614174000",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "getUserByIdV2AndOAuth2TokenFromRequestContext",
    "MAX_CONCURRENT_REQUESTS_PER_TENANT_V2_LIMIT_10",
    "src/components/UserProfileV2/index.test.tsx",
    "from server.standards.secrets import find_secrets",
    string.ascii_letters + DIGITS,
)
WORDS = st.sampled_from(
    ["user", "order", "Service", "get", "invoice", "version2", "Repository", "OAuth2"]
)
# Each is repeated to a long text; work that grows with the square of it would not come to an end.
HOSTILE = (
    *("a", "aB0", "B", "-", '"', " ", "\n", "|", "| token |\n|-|\n", "| a |\n", "{{", "\\_"),
    *("password: ", "password ", "password for a ", 'password = "', "password (a", "token|"),
    *(
        "password:\n",
        "name: DB_PASSWORD\n",
        "password: a.",
        "-----BEGIN A ",
        "--\nBEGIN\n",
        "://a:",
    ),
    *(f"password: AB{'1' * 100}Z b ", "password of a: b c ", f"token: {'a.' * 50}{'1' * 50}! "),
    *("eyJ", "eyJaaaaaaaaaaa.", "sk-", "SG.aaaaaaaaaaaaaaaaa.", "authorization: bearer "),
    *("\u0315\u0300", "\U0001d165\U0001d16d", "\u200b"),
)


def drawn(alphabet: str, length: int, seed: int = 0) -> str:
    """Draw a key that holds a digit, a small letter and a capital, where the alphabet has them."""
    source = random.Random(seed)
    while True:
        key = "".join(source.choices(alphabet, k=length))
        kinds = (str.isdigit, str.islower, str.isupper)
        if all(any(map(kind, key)) for kind in kinds if any(map(kind, alphabet))):
            return key


def places(text: str, value: str) -> list[tuple[int, str]]:
    """List what is found, and how often the value stands in the line of each finding."""
    lines = text.split("\n")
    return [(lines[one.line - 1].count(value), one.kind) for one in find_secrets(text)]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_password_is_found_in_every_notation(notation: str):
    text = notation.format(CHOSEN)

    assert places(text, CHOSEN) == [(1, IsStr())]


@given(
    st.sampled_from(NOTATIONS),
    st.sampled_from([HEX, LETTERS, LETTERS + "_-"]),
    st.integers(16, 64),
    st.integers(),
)
def test_a_random_key_is_found_in_every_notation_and_never_told(
    notation: str, alphabet: str, length: int, seed: int
):
    key = drawn(alphabet, length, seed)

    found = find_secrets(notation.format(key))

    assert found
    assert key not in repr(found)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_placeholder_is_no_secret_in_any_notation(notation: str):
    taken = [text for text in PLACEHOLDERS if find_secrets(notation.format(text))]

    assert taken == []


@pytest.mark.parametrize(("kind", "shape", "alphabet", "length"), KEYS)
def test_a_key_is_known_by_its_shape(kind: str, shape: str, alphabet: str, length: int):
    key = shape.format(drawn(alphabet, length))

    assert places(f"Before.\nCall it with {key}, please.", key) == [(1, kind)]


@pytest.mark.parametrize("shape", sorted({shape for _, shape, *_ in KEYS}))
@pytest.mark.parametrize("body", ["X" * 40, "...", "<yours>", "your_key_here_and_nowhere_else_0"])
def test_a_shape_without_a_key_is_no_secret(shape: str, body: str):
    assert find_secrets(shape.format(body)) == []


@pytest.mark.parametrize(
    "written",
    [
        "-----BEGIN {}PRIVATE KEY-----",
        "  > -----BEGIN RSA {}PRIVATE KEY-----",
        '"-----BEGIN {}" + "PRIVATE " \'KEY-----\'',
        "-----BEGIN {}\nPRIVATE\nKEY-----",
        "\u2013\u2013\u2013BEGIN OPENSSH {}PRIVATE KEY\u2013\u2013\u2013",
        "PuTTY-{}User-Key-File-3: ssh-ed25519",
    ],
)
def test_the_header_of_a_private_key_is_found_where_it_begins(written: str):
    text = "\n\n" + written.format("")

    assert find_secrets(text) == [Secret(3, "a private key")]


@pytest.mark.parametrize(
    "written",
    [
        "".join(chr(ord(char) + 0xFEE0) for char in f"password:{CHOSEN}"),
        f"pass\u200bword: {CHOSEN[:3]}\u200d{CHOSEN[3:]}",
        f"pass\u00adword: {CHOSEN}",
        f"p\u0336a\u0336ssword: {CHOSEN}",
        f"\U0001d429assword\u00a0=\u2003\u201c{CHOSEN}\u201d",
        f"password\\_1\\: {CHOSEN}",
    ],
)
def test_a_text_is_read_as_it_looks(written: str):
    assert [one.line for one in find_secrets(written)] == [1]


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (f"password: {WORD}", True),
        (f"- **Password**: {WORD}  # staging", True),
        (f"PASSWORD={WORD}", True),
        (f'token = "{WORD}"', True),
        (f"postgres://{WORD}:{WORD}@localhost/db", True),
        (f"The password: {WORD} or so.", False),
        (f"connect(password={WORD})", False),
        (f"password = {WORD}", False),
        (f"token: {WORD}", False),
        ("password: " + "9" * 6, True),
        ("password: 2024", False),
        ("password: p@ss!word", True),
        ("password: me@a.test", False),
    ],
)
def test_a_word_is_a_password_only_where_nothing_but_a_value_can_stand(text: str, held: bool):
    assert bool(find_secrets(text)) == held


@pytest.mark.parametrize(
    "text",
    [
        f"- name: DB_PASSWORD\n  value: {CHOSEN}",
        f'{{"name": "DB_PASSWORD", "value": "{CHOSEN}"}}',
    ],
)
def test_a_value_is_found_beside_its_name(text: str):
    assert places(text, CHOSEN) == [(1, "a value assigned to `password`")]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_speaks_of_secrets_and_holds_none_passes(text: str):
    assert find_secrets(text) == []


@given(st.lists(WORDS, min_size=3, max_size=12), st.sampled_from(["", "_", "-", "/", ".", "::"]))
def test_a_name_is_no_secret_however_long(words: list[str], joint: str):
    name = joint.join(word if joint else word.title() for word in words)

    assert find_secrets(f"See {name}.") == []


@pytest.mark.parametrize(
    "path",
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        *REPOSITORY.glob("templates/**/*.md"),
    ],
    ids=lambda path: path.relative_to(REPOSITORY).as_posix(),
)
def test_our_own_pages_hold_no_secret(path: Path):
    assert find_secrets(path.read_text(encoding="utf-8")) == []


@given(st.lists(st.booleans()), st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_count_from_one_whatever_ends_them(held: list[bool], end: str):
    text = end.join(f"password: {CHOSEN}" if one else "No\u2028such\x0bthing." for one in held)

    assert [one.line for one in find_secrets(text)] == [
        number for number, one in enumerate(held, start=1) if one
    ]


def test_each_kind_is_told_once_per_line_in_the_order_of_the_lines():
    token = "glpat-" + drawn(LETTERS, 20)
    text = (
        f"{drawn(HEX, 32)}\ntoken: {token}, token: {token}, password: {CHOSEN}\n\nAPI key: {CHOSEN}"
    )

    assert find_secrets(text) == snapshot(
        [
            Secret(line=1, kind="a random-looking text"),
            Secret(line=2, kind="a GitLab token"),
            Secret(line=2, kind="a value assigned to `password`"),
            Secret(line=2, kind="a value assigned to `token`"),
            Secret(line=4, kind="a value assigned to `api key`"),
        ]
    )


@given(st.text())
@example("password: _._")
def test_any_text_can_be_searched(text: str):
    assert all(1 <= one.line <= len(text) + 1 for one in find_secrets(text))


@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
def test_a_hostile_text_takes_time_that_grows_with_its_length(unit: str):
    text = unit * (300_000 // len(unit))

    # What counts is that it ends: a hanging test is stopped.
    assert isinstance(find_secrets(text), list)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("mysql -u root -p" + "S3cret" + "Pw9 shop", "a password for a program"),
        ("sshpass -p '" + "Winter" + "2026!' ssh host", "a password for a program"),
        ("password: " + "UeJmesnecQ" + "CokX&2", "a value assigned to `password`"),
    ],
)
def test_a_password_among_options_or_with_an_ampersand_is_found(line: str, kind: str):
    assert Secret(1, kind) in find_secrets(line)


@pytest.mark.parametrize("line", ["mysql -u root -p shop", "sshpass -p $PASSWORD ssh host"])
def test_a_password_that_is_asked_for_or_put_in_later_is_none(line: str):
    assert find_secrets(line) == []
