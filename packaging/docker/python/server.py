"""An ordinary server: nothing in it is about clusterd."""
import http.server
import os
import time

ME = "{} {CLUSTERD_GENERATION} {NODE_APP_INSTANCE}\n".format(os.getpid(), **os.environ).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Length", str(len(ME)))
        self.end_headers()
        self.wfile.write(ME)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
