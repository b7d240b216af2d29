"""Gets an artifact onto a device and measures it there: transport, session, agent.

A leaf: of edgeq it imports the error tree alone, and the agent imports nothing of ours at all.
"""
