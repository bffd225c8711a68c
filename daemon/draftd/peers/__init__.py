"""Several machines behind one address: other servers to which requests go, besides this daemon's own workers.

`fleet` knows the peers and what each is believed to hold, `watch` asks them, and `routing` decides where a request
goes; the proxy does the sending (`web/peer_relay.py`).
"""

# Says how many daemons a request has come through. A request that has this header is answered by the daemon's own
# workers only, so that daemons which are each other's peers cannot send it round in circles.
HOPS_HEADER = "X-Draftd-Hops"
LOAD_PATH = "/api/load"  # what a draftd tells its peers
