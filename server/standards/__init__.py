"""The room of standards: what a team agreed to do, proposed by personas and approved by people."""
