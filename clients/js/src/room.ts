import type { Done } from "./calls.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { ParleyError, passing } from "./error.js";
import { Retry } from "./retry.js";
import type { Joined, LostRoom, Member, Message, Position, Room, RoomEvents } from "./types.js";

/** What a room needs of its client. */
export interface Host {
  /** A question on this connection; it counts toward the opening while that lasts. */
  ask(fields: object, done: Done): void;
  request<A>(type: string, fields: object, o?: { timeout?: number }): Promise<A>;
  /** Whether the connection takes a join now. A resume that has no answer may bring a room that was `sent`. */
  takesJoin(sent: boolean): boolean;
  live(): boolean;
  emit(to: Emitter, name: string, v: unknown): void;
  /** Something is missing, or a room is not there any more: this opening does not recover. */
  missed(lost?: LostRoom): void;
}

interface Start extends Partial<Position> {
  gap?: boolean;
  missing?: unknown;
}

type Answer = { members: number; gap: boolean; data?: unknown };

/** Messages that are not the application's. Of some the room learns. */
export const ours =
  /^(connected|reconnect_token|reconnected|authenticated|auth_expiring|goodbye|ping|pong|error|joined|left|members|history|position|announcements|)$/;

/** A room, and what the client has seen of it. */
export class Membership implements Room {
  state: Room["state"] = "left";
  position: Position | null = null;
  /** The client asked for the room, or the server made it a member; and neither has ended that. */
  wanted = false;
  #emitter = new Emitter();
  #sent = false; // the session may have the room
  #asked = false; // on this connection
  #been = false; // a member, on this connection or an earlier one
  #behind = false; // the server made it a member ahead of its position: what has a number comes again
  #answer: Deferred<Answer> | null = null; // of join()
  #again: ReturnType<typeof setTimeout> | undefined;
  #retry = new Retry();

  constructor(
    readonly name: string,
    readonly host: Host,
  ) {}

  on<E extends keyof RoomEvents>(e: E, f: (v: RoomEvents[E]) => void): () => void {
    return this.#emitter.on(e, f);
  }

  join(): Promise<Answer> {
    this.wanted = true;
    if (!this.#answer) {
      this.#answer = new Deferred();
      if (this.state !== "joined") this.state = "joining";
      this.#asked = false;
      this.tryJoin();
    }
    return this.#answer.promise;
  }

  leave(): Promise<void> {
    this.wanted = false;
    this.#give(new ParleyError("left"));
    if (this.state === "left" || !this.host.live()) return Promise.resolve(this.#gone());
    return new Promise((resolve) => this.host.ask({ type: "leave", room: this.name }, (m) => resolve(m ? undefined : this.#gone())));
  }

  publish(data: unknown, o?: { timeout?: number }): Promise<{ recipients: number }> {
    return this.host.request("broadcast", { room: this.name, data }, o);
  }

  async *members(): AsyncIterable<Member> {
    for (let after: unknown; ; ) {
      const m = await this.host.request<Message>("members", { room: this.name, after });
      for (const [i, id] of m.members.entries()) yield { id, user: m.users?.[i] ?? null };
      if (!(after = m.next)) return;
    }
  }

  async history(o: { limit?: number; before?: Position } = {}): Promise<Message[]> {
    return (await this.host.request<Message>("history", { room: this.name, limit: o.limit, before: o.before })).messages;
  }

  /** Sends the join, unless it has been sent, or a resume may bring the room. */
  tryJoin(): void {
    clearTimeout(this.#again);
    if (!this.wanted || this.#asked || !this.host.takesJoin(this.#sent)) return;
    this.#asked = this.#sent = true;
    if (this.state !== "joined") this.state = "joining";
    this.host.ask({ type: "join", room: this.name, since: this.position ?? undefined }, (_, error) => {
      if (!error || error.code === "dropped") return;
      this.#asked = false;
      if (!passing(error.code)) return this.refuse(error);
      this.host.missed();
      this.#again = setTimeout(() => this.tryJoin(), this.#retry.next(Date.now())!);
    });
  }

  /** The session, which did not have the room, or is gone, does not bring it. */
  notResumed(): void {
    this.#sent = this.#asked;
    this.tryJoin();
  }

  /** The session has brought the room. */
  resumed(start: Start): void {
    if (!this.wanted && this.#sent) return this.host.ask({ type: "leave", room: this.name }, () => {}); // it has left meanwhile
    this.wanted = this.#sent = true;
    this.#behind = false;
    const gap = this.#told(start);
    this.state = "joined";
    if (this.#answer && !this.#answer.done) this.tryJoin(); // its answer was lost with the connection
    else this.#tell("joined", { gap });
  }

  refuse(error: ParleyError, lost = this.#been): void {
    this.state = "refused";
    this.host.missed(lost ? { room: this.name, code: error.code } : undefined);
    this.#give(error);
    this.#tell("refused", error);
  }

  dropped(): void {
    clearTimeout(this.#again);
    this.#asked = this.#behind = false;
    if (this.state === "joined") this.state = "joining";
  }

  ended(error: ParleyError): void {
    this.dropped();
    this.#sent = false;
    this.state = "left";
    this.#give(error);
  }

  /** Takes what the server says of the room. Answers whether it is a message for the application. */
  take(m: Message): boolean {
    switch (m.type) {
      case "joined":
        this.#joined(m);
        return false;
      case "position":
        this.#told(m);
        return false;
      case "left":
        this.#sent = false;
        if (m.ref === undefined) {
          this.wanted = false;
          this.#give(new ParleyError(m.code || "left"));
        }
        this.#gone(m.code);
        return false;
      case "member_joined":
      case "member_left":
        this.#tell(m.type, { id: m.connection_id, user: m.user ?? null });
        return false;
    }
    if (ours.test(m.type)) return false;
    const fresh = m.epoch === undefined || this.#advance(m);
    if (!fresh || /^(skip|gap|broadcast_sent)$/.test(m.type)) return false;
    this.#tell("message", m);
    return true;
  }

  #joined(m: Message): void {
    if (!this.wanted && m.ref !== undefined) return; // the client has left meanwhile
    this.wanted = true;
    const p = this.position;
    this.#behind = m.ref === undefined && p !== null && p.epoch === m.epoch && p.seq < m.seq!;
    this.#sent = true;
    if (this.#behind) {
      this.#asked = false;
      return this.tryJoin(); // from its position; or the resume, whose answer follows, does that
    }
    const gap = this.#told(m);
    this.state = "joined";
    this.#retry = new Retry();
    const joined: Joined = { members: m.members, gap };
    if ("data" in m) joined.data = m.data;
    if (m.ref !== undefined) this.#answer?.resolve(joined as Answer);
    this.#tell("joined", joined);
  }

  /** The server tells where the client stands in the room. Answers whether something is missing. */
  #told(m: Start): boolean {
    const p = this.position;
    const again = this.#been;
    this.#been = true;
    if (m.epoch === undefined || m.seq === undefined) {
      this.position = null; // no history: what was missed cannot be known
      return (again || p !== null) && this.#gap(null, null);
    }
    const next = { seq: m.seq, epoch: m.epoch };
    if (!p || p.epoch !== next.epoch || (m.gap && !m.missing)) {
      this.position = next;
      return (p !== null || again || !!m.gap) && this.#gap(null, null);
    }
    if (next.seq <= p.seq) return false; // a replay that begins further back: doubles are dropped
    this.position = next;
    return this.#gap(p.seq + 1, next.seq);
  }

  /** Moves on to a numbered message, skip or gap. Answers whether it is new. */
  #advance(m: Message): boolean {
    const p = this.position;
    const seq = m.seq!;
    if (this.#behind || (p && p.epoch === m.epoch && seq <= p.seq && !m.reset)) return false;
    this.position = { seq, epoch: m.epoch! };
    if (m.reset || (p && p.epoch !== m.epoch)) this.#gap(null, null);
    else if (p && m.type === "gap") this.#gap(p.seq + 1, seq);
    else if (p) {
      const from = m.type === "skip" && m.from ? Number(m.from) : seq;
      if (from > p.seq + 1) this.#gap(p.seq + 1, from - 1);
    }
    return true;
  }

  #gap(from: number | null, to: number | null): true {
    this.host.missed();
    this.#tell("gap", { room: this.name, from, to });
    return true;
  }

  /** The membership has ended, though the client may have asked for the next one already. */
  #gone(code?: string): void {
    const told = this.state === "left";
    this.state = this.#answer ? "joining" : "left";
    this.#asked = this.#asked && !!this.#answer;
    this.position = null;
    this.#been = this.#behind = false;
    if (!told) this.#tell("left", code ? { code } : {});
  }

  /** Ends the promise of join(). */
  #give(error: ParleyError): void {
    this.#answer?.reject(error);
    this.#answer = null;
  }

  #tell(name: keyof RoomEvents, v: unknown): void {
    this.host.emit(this.#emitter, name, v);
  }
}
