"""The two template languages of chat models: Go `text/template` and Jinja.

Text in, text out: nothing here knows about models, messages on the wire or HTTP, so that the model store
can ask whether a template parses and what it can do without importing the chat room.
"""
