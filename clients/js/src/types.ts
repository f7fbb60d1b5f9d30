import type { ParleyError } from "./error.js";

/** Where a client is. `states` has a sentence for each. */
export type State = "idle" | "connecting" | "authenticating" | "open" | "waiting" | "closed";

/** A place in the messages of a room with history: `epoch` is only ever compared for equality. */
export interface Position {
  readonly seq: number;
  readonly epoch: string;
}

/** A message of the server: a broadcast, or what the application sends. */
export interface Message<D = any> {
  type: string;
  room?: string;
  from?: string;
  user?: string;
  data?: D;
  timestamp?: number;
  seq?: number;
  epoch?: string;
  [field: string]: any;
}

/** Messages by their `type`, for `onMessage`. */
export type Types = Record<string, any>;
export type AnyTypes = Record<string, Message>;

export interface LostRoom {
  room: string;
  code: string;
}

/** What an open connection is: `recovered` is true only if it follows an earlier one and no message is missing. */
export interface Opened {
  id: string;
  resumed: boolean;
  recovered: boolean;
  lost: LostRoom[];
}

export interface Drop {
  code: number;
  reason: string;
  /** Milliseconds until the next attempt; null if there is none, or none before the device is online. */
  retryIn: number | null;
}

export interface Events {
  state: State;
  open: Opened;
  drop: Drop;
  message: Message;
  error: ParleyError;
}

export interface Joined {
  /** Absent after a resume, which does not count the members. */
  members?: number;
  gap: boolean;
  data?: unknown;
}

/** Messages `from` to `to` do not come. Both are null where it is not known which, and how many, are missing. */
export interface Gap {
  room: string;
  from: number | null;
  to: number | null;
}

export interface Member {
  id: string;
  user: string | null;
}

export interface RoomEvents {
  message: Message;
  joined: Joined;
  /** `code` is there if the server ended the membership, `forbidden` for instance. */
  left: { code?: string };
  member_joined: Member;
  member_left: Member;
  gap: Gap;
  refused: ParleyError;
}

export interface Room {
  readonly name: string;
  readonly state: "left" | "joining" | "joined" | "refused";
  /** Of the newest message that was delivered; null in a room without history. */
  readonly position: Position | null;
  join(): Promise<{ members: number; gap: boolean; data?: unknown }>;
  leave(): Promise<void>;
  publish(data: unknown, o?: { timeout?: number }): Promise<{ recipients: number }>;
  members(): AsyncIterable<Member>;
  history(o?: { limit?: number; before?: Position }): Promise<Message[]>;
  on<E extends keyof RoomEvents>(e: E, f: (v: RoomEvents[E]) => void): () => void;
}

/** What the client uses of `sessionStorage` and its like. */
export interface Storage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface Options {
  /** An access token. With `getToken` another is fetched once this one has expired. */
  token?: string;
  /** Fetches an access token; null ends the client, an exception is tried again. */
  getToken?: () => Promise<string | null>;
  /** How the token is shown: in the first message (the default), or in the handshake. */
  tokenIn?: "message" | "subprotocol";
  /** The class of sockets where there is no global one: that of `ws` in Node 20. */
  WebSocket?: unknown;
  /** Milliseconds that an opening and an answer may take: 10,000. */
  timeout?: number;
  /** Publishes and requests that wait while the client is not open: none. */
  queue?: number;
  /** Milliseconds between attempts: 500, doubled up to 20,000, and a random part of that; `attempts` in a row, without end. */
  retry?: { min?: number; max?: number; attempts?: number };
  /** Milliseconds of silence after which the client asks whether the server is there: 25,000. */
  quiet?: number;
  /** Keeps the token that resumes the session over a reload of the page: `sessionStorage`. */
  storage?: Storage | null;
}
