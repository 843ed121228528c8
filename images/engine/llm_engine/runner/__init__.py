"""The child process that holds one loaded model, and the language in which the server speaks to it.

Only `messages` and `protocol` are meant for the server's side; everything else runs inside the child.
"""
