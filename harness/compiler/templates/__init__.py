"""Chat templates: compiled for the engine, and as the Conversation of MLC where that can be."""
