"""Other people's MCP clients and the official suite, against the installed server.

`make conformance` runs this. It needs Python and the package indexes.
"""

import sys

from tests.conformance import inspector, sdk_clients, suite
from tests.conformance.installation import CannotInstall, install
from tests.conformance.report import CannotCheck, Report


def main() -> int:
    try:
        tools = install()
    except CannotInstall as reason:
        print(reason, file=sys.stderr)
        return 2
    report = Report()
    for part in (suite, inspector, sdk_clients):
        try:
            part.check(report, tools)
        except CannotCheck as reason:
            report.check(part.__name__, str(reason))
    return report.close()


sys.exit(main())
