"""The gateway's outside over HTTP: REST, live stream, board, pages. It reads state and calls services, decides nothing.

limits.py     what every request and answer must keep to: sizes, deadlines, headers
access.py     who is asking; `need(role)` guards each route
problems.py   every error as RFC 9457 problem details
board/        the board: static files, no build step
"""
