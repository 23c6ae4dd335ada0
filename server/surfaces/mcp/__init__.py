"""The MCP surface: tools, resources, prompts and skills over the same services."""
