// Which room this tab is in and in what role: both are in the address, so that a link is an invitation.

const NOT_ALLOWED = /[^A-Za-z0-9_.:-]+/g;
const LONGEST = 128;
const SENDABLE = /^[\w.~-]+$/; // what a subprotocol may carry

const FIRST = ["amber", "brisk", "calm", "clear", "early", "gentle", "golden", "green", "high", "kind",
  "light", "merry", "mild", "open", "quick", "quiet", "silver", "steady", "sunny", "warm"];
const SECOND = ["aspen", "bay", "brook", "cedar", "cliff", "cove", "dune", "field", "fjord", "forest",
  "garden", "harbor", "island", "lake", "meadow", "orchard", "river", "shore", "valley", "willow"];

const pick = (words) => words[Math.floor(Math.random() * words.length)];
const randomName = () => `${pick(FIRST)}-${pick(SECOND)}-${100 + Math.floor(Math.random() * 900)}`;

/** Return the address of this page for a room: `?room=NAME`, with `&listen` for a listener. */
export function pageUrl(room, listen) {
  const url = new URL(location.pathname, location.origin);
  url.search = `?room=${encodeURIComponent(room)}${listen ? "&listen" : ""}`;
  return url.href;
}

/** Return the address of the socket. */
export function socketUrl(withToken) {
  const url = new URL("v1/connect", location.origin + location.pathname);
  if (withToken) url.search = "?auth=message"; // so that we are told why a token is refused
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/**
 * Read `{room, listen, token}` from the address, and put a room into it when none is there.
 * The token may come as `#token=...`: a fragment is never sent, and it is taken out of sight.
 */
export function enter() {
  const query = new URLSearchParams(location.search);
  const fragment = new URLSearchParams(location.hash.slice(1));
  const asked = query.get("room") ?? fragment.get("room") ?? "";
  const room = asked.trim().replace(NOT_ALLOWED, "-").slice(0, LONGEST) || randomName();
  const listen = query.has("listen") || fragment.has("listen");
  history.replaceState(null, "", pageUrl(room, listen));
  const token = fragment.get("token") ?? "";
  return { room, listen, token: SENDABLE.test(token) ? token : "" };
}

/** Whether this address means something on this computer only. */
export const isLoopback = () => /^(localhost|127\.|\[::1\])/.test(location.hostname);
