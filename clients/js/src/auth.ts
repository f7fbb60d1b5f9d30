import { ParleyError } from "./error.js";
import type { Options } from "./types.js";

/** The access token, in memory, and where another one comes from. */
export class Auth {
  /** The server has called the token expired. */
  stale = false;
  #token: string | undefined;
  #asking: Promise<string> | null = null;

  constructor(readonly options: Options) {
    this.#token = options.token;
  }

  get canRenew(): boolean {
    return !!this.options.getToken;
  }

  /** The token to show, if there is one. Throws a ParleyError if trying again is of no use. */
  async ready(): Promise<string | undefined> {
    if (this.options.getToken && (this.stale || !this.#token)) return this.renew();
    return this.#token;
  }

  /** Fetches a token; calls at the same time get the same one. */
  renew(): Promise<string> {
    return (this.#asking ??= this.#renew().finally(() => {
      this.#asking = null;
    }));
  }

  async #renew(): Promise<string> {
    const token = await this.options.getToken?.();
    if (!token) throw new ParleyError("no_token");
    this.stale = false;
    return (this.#token = token);
  }
}
