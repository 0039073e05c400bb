// The server's clock, as closely as its answers tell it: what has an end is counted down by it, not by this machine's.

import { signal } from "../vendor/preact.js";

class ServerClock {
  // The server's time is this machine's plus something between these. Each answer narrows it: its Date is a whole
  // second that was true at some instant between sending and receiving.
  #least = -Infinity;
  #most = Infinity;

  /** @param {string | null} date @param {number} sent @param {number} received */
  observe(date, sent, received) {
    const second = date === null ? NaN : Date.parse(date);
    if (Number.isNaN(second)) return;
    const least = second - received;
    const most = second + 1000 - sent;
    // Clocks are set, and machines sleep: what contradicts the past begins anew.
    const fits = least <= this.#most && most >= this.#least;
    this.#least = fits ? Math.max(least, this.#least) : least;
    this.#most = fits ? Math.min(most, this.#most) : most;
  }

  /** Unix milliseconds */
  now() {
    const known = Number.isFinite(this.#least);
    return Date.now() + (known ? (this.#least + this.#most) / 2 : 0);
  }
}

export const serverClock = new ServerClock();

/** Unix milliseconds by the server's clock, once a second. What reads it is drawn again each second. */
export const now = signal(serverClock.now());

setInterval(() => {
  if (document.visibilityState === "visible") now.value = serverClock.now();
}, 1000);
