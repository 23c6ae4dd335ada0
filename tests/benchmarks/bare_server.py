"""The smallest server of the SDK, as a newcomer writes it: what ours is measured against."""

from mcp.server import MCPServer

mcp = MCPServer("bare")


@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


if __name__ == "__main__":
    mcp.run()
