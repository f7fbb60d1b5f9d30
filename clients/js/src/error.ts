import { codes } from "./words.js";

/** Why something was refused or failed: programs look at `code`. */
export class ParleyError extends Error {
  readonly code: string;
  constructor(code: string, message?: string) {
    super(message || codes[code] || code);
    this.name = "ParleyError";
    this.code = code;
  }
}

/** Refusals that the next attempt may not meet. */
export const passing = (code: string): boolean => /^(overloaded|unavailable|rate_limited|timeout|dropped)$/.test(code);
