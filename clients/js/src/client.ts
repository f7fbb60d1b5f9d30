import { Auth } from "./auth.js";
import { Calls, type Done } from "./calls.js";
import { Deferred } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { offline, watch } from "./environment.js";
import { ParleyError, passing } from "./error.js";
import { Link } from "./link.js";
import { Liveness } from "./liveness.js";
import { Retry, stays } from "./retry.js";
import { type Host, Membership, ours } from "./room.js";
import { Session } from "./session.js";
import type { AnyTypes, Events, LostRoom, Message, Opened, Options, Position, Room, State, Types } from "./types.js";

const ends: Record<number, string> = { 4001: "unauthorized", 4004: "taken_over" };

export class Parley<T extends Types = AnyTypes> {
  #url: string | (() => string | Promise<string>);
  #options: Options;
  #state: State = "idle";
  #id: string | null = null;
  #user: string | null = null;
  #emitter = new Emitter();
  #rooms = new Map<string, Membership>();
  #calls = new Calls();
  #auth: Auth;
  #session: Session;
  #retry: Retry;
  #link: Link | null = null;
  #flown = false; // the first flight is on its way, or answered
  #owed = 0; // answers that the opening waits for
  #liveness: Liveness | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined; // until the next attempt, or the end of this one
  #queue: (() => void)[] = [];
  #opening: Deferred<Opened> | null = null; // of connect()
  #opened = { before: false, resumed: false, recovered: true, lost: [] as LostRoom[] };
  #endings = 0; // whatever was begun before the last ending is void
  #telling = false;
  #untold: State[] = [];
  #unwatch: (() => void) | null = null;
  #host: Host;

  constructor(url: string | (() => string | Promise<string>), options: Options = {}) {
    this.#url = url;
    this.#options = options;
    this.#auth = new Auth(options);
    this.#session = new Session(options.storage, "parley:" + (typeof url === "string" ? url : ""));
    const { min, max, attempts } = options.retry ?? {};
    this.#retry = new Retry(min, max, attempts);
    this.#host = {
      ask: (fields, done) => this.#ask(fields, done),
      request: (type, fields, o) => this.request(type, fields, o),
      takesJoin: (sent) => this.#flown && !(this.#session.pending && (sent || this.#session.restored)),
      live: () => this.#flown,
      emit: (to, name, v) => this.#emit(to, name, v),
      missed: (lost) => {
        this.#opened.recovered = false;
        if (lost) this.#opened.lost.push(lost);
      },
    };
  }

  get state(): State {
    return this.#state;
  }

  get id(): string | null {
    return this.#id;
  }

  get user(): string | null {
    return this.#user;
  }

  connect(): Promise<Opened> {
    if (this.#state === "idle" || this.#state === "closed") {
      this.#opened.before = false;
      this.#opening = new Deferred();
      this.#session.restore();
      this.#unwatch = watch(
        () => this.#back(),
        () => this.#state === "waiting" && clearTimeout(this.#timer),
      );
      void this.#attempt();
    }
    return this.#opening!.promise;
  }

  close(code = 1000, reason = ""): void {
    if (this.#state !== "closed") this.#end(new ParleyError("closed"), code, reason);
  }

  async refresh(): Promise<void> {
    const endings = this.#endings;
    try {
      const token = await this.#auth.renew();
      if (endings !== this.#endings || !this.#flown) return; // the next connection shows it
      await this.#opening!.promise;
      this.#user = (await this.request<Message>("auth", { token })).user ?? this.#user;
    } catch (e) {
      if (endings === this.#endings && (e as ParleyError).code === "no_token") this.#end(e as ParleyError);
      throw e;
    }
  }

  send(type: string, fields: object = {}): void {
    if (this.#state !== "open") throw new ParleyError("offline");
    this.#link!.send({ ...fields, type });
  }

  request<A = unknown>(type: string, fields: object = {}, o: { timeout?: number; signal?: AbortSignal } = {}): Promise<A> {
    const signal = o.signal;
    return new Promise<A>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      let forget = () => {};
      const abort = () => (forget(), reject(signal!.reason));
      signal?.addEventListener("abort", abort);
      const done: Done = (answer, error) => {
        signal?.removeEventListener("abort", abort);
        if (error) reject(error);
        else resolve(answer as A);
      };
      const go = () => {
        const link = this.#link;
        if (this.#state !== "open" || !link) return done(null, new ParleyError("offline"));
        forget = this.#calls.ask((m) => link.send(m), { ...fields, type }, o.timeout ?? this.#timeout, done);
      };
      const waits = /connecting|authenticating|waiting/.test(this.#state) && this.#queue.length < (this.#options.queue ?? 0);
      if (!waits) return go();
      this.#queue.push(go);
      forget = () => (this.#queue = this.#queue.filter((f) => f !== go));
    });
  }

  room(name: string, o: { since?: Position; join?: boolean } = {}): Room {
    const room = this.#membership(name);
    if (o.since && !room.position && room.state === "left") room.position = o.since;
    if (o.join !== false && !room.wanted) void room.join();
    return room;
  }

  on<E extends keyof Events>(e: E, f: (v: Events[E]) => void): () => void {
    return this.#emitter.on(e, f);
  }

  onMessage<K extends keyof T & string>(type: K, f: (m: T[K]) => void): () => void {
    return this.#emitter.on(":" + type, f);
  }

  get #timeout(): number {
    return this.#options.timeout ?? 10_000;
  }

  #membership(name: string): Membership {
    let room = this.#rooms.get(name);
    if (!room) this.#rooms.set(name, (room = new Membership(name, this.#host)));
    return room;
  }

  // Events. Once close() has returned, no listener is called.

  #emit(to: Emitter, name: string, v: unknown): void {
    const endings = this.#endings;
    if (this.#state !== "closed") to.emit(name, v, () => endings === this.#endings);
  }

  /** Every listener hears every state in order, also if a listener changes the state. */
  #become(state: State): void {
    this.#state = state;
    this.#untold.push(state);
    if (this.#telling && state !== "closed") return;
    const outer = this.#telling;
    this.#telling = true;
    for (let next = this.#untold.shift(); next; next = this.#untold.shift()) {
      const endings = this.#endings;
      this.#emitter.emit("state", next, () => endings === this.#endings);
      if (outer) break; // what a listener began after an ending is told by the loop that called the listener
    }
    this.#telling = outer;
  }

  // One attempt, from the token to the answers of the first flight.

  async #attempt(): Promise<void> {
    const endings = this.#endings;
    const current = () => endings === this.#endings;
    clearTimeout(this.#timer);
    this.#become("connecting");
    try {
      if (!current()) return;
      const token = await this.#auth.ready();
      if (!current()) return;
      const url = typeof this.#url === "string" ? this.#url : await this.#url();
      if (!current()) return;
      this.#dial(url, token);
    } catch (e) {
      if (!current()) return;
      if (e instanceof ParleyError) return this.#end(e);
      this.#emit(this.#emitter, "error", new ParleyError("unavailable", String(e)));
      if (current()) this.#dropped(1006, String(e));
    }
  }

  #dial(url: string, token: string | undefined): void {
    const handshake = token !== undefined && this.#options.tokenIn === "subprotocol";
    const link = new Link(this.#options.WebSocket, url, handshake ? ["parley.v1", "parley.token." + token] : [], {
      opened: () => this.#fly(handshake ? undefined : token),
      message: (m) => this.#message(m, !!token),
      closed: (code, reason) => this.#dropped(code, reason),
    });
    this.#link = link;
    this.#timer = setTimeout(() => this.#abandon("the server does not answer"), this.#timeout);
  }

  /** Sends all that there is to say at once: who the client is, the session, and rooms that the session cannot have. */
  #fly(token: string | undefined): void {
    const link = this.#link;
    Object.assign(this.#opened, { resumed: false, recovered: this.#opened.before, lost: [] });
    this.#liveness = new Liveness(
      this.#options.quiet ?? 25_000,
      () => this.#link?.send({ type: "ping" }),
      () => this.#abandon("nothing was heard of the server"),
    );
    this.#become("authenticating");
    if (link !== this.#link) return;
    this.#owed = 1; // "connected"
    this.#flown = true;
    if (token !== undefined) this.#ask({ type: "auth", token }, (m, error) => this.#authenticated(m, error));
    if (this.#session.token) {
      const last: Record<string, Position> = {};
      for (const room of this.#rooms.values()) if (room.position) last[room.name] = room.position;
      this.#session.resuming();
      this.#ask({ type: "reconnect", token: this.#session.token, last }, (m, error) => this.#resumed(m, error));
    } else this.#session.answered(false);
    for (const room of this.#rooms.values()) this.#session.pending ? room.tryJoin() : room.notResumed();
  }

  #ask(fields: object, done: Done): void {
    const link = this.#link;
    if (!link || !this.#flown) return done(null, new ParleyError("dropped"));
    this.#owed++;
    this.#calls.ask((m) => link.send(m), fields, this.#timeout, (m, error) => {
      done(m, error);
      if (link === this.#link) this.#answered();
    });
  }

  #authenticated(m: Message | null, error?: ParleyError): void {
    if (m) this.#user = m.user ?? null;
    else if (error!.code === "token_expired") this.#expired();
    else if (error!.code === "unauthorized") this.#end(error!);
    else if (error!.code === "dropped") return;
    else if (passing(error!.code)) this.#owed++; // this connection never opens: the server closes it, and may say for how long
    else this.#emit(this.#emitter, "error", error!); // a server that asks for no token does not know the message
  }

  #expired(): void {
    this.#auth.stale = true;
    if (this.#auth.canRenew) this.#abandon("the access token has expired", 4006);
    else this.#end(new ParleyError("token_expired"));
  }

  #resumed(m: Message | null, error?: ParleyError): void {
    if (error?.code === "dropped") return;
    if (error && passing(error.code)) return this.#abandon(error.message);
    const endings = this.#endings;
    this.#session.answered(!!m);
    if (m) {
      this.#opened.resumed = true;
      this.#opened.before || (this.#opened.recovered = true);
      for (const { room, code } of m.lost ?? []) this.#membership(room).refuse(new ParleyError(code), true);
      for (const name of m.rooms) {
        if (endings !== this.#endings) return;
        this.#membership(name).resumed({ ...m.positions?.[name], gap: m.gaps?.includes(name), missing: m.missing?.[name] });
      }
    }
    const brought = new Set<string>([...(m?.rooms ?? []), ...(m?.lost ?? []).map((l: LostRoom) => l.room)]);
    for (const room of this.#rooms.values()) if (endings === this.#endings && !brought.has(room.name)) room.notResumed();
  }

  #answered(): void {
    if (--this.#owed || this.#state !== "authenticating") return;
    clearTimeout(this.#timer);
    this.#retry.opened(Date.now());
    const { before, resumed, recovered, lost } = this.#opened;
    const opened: Opened = { id: this.#id!, resumed, recovered: recovered && (before || resumed), lost };
    this.#opened.before = true;
    const link = this.#link;
    this.#become("open");
    if (link !== this.#link) return;
    for (const go of this.#queue.splice(0)) go();
    this.#opening!.resolve(opened);
    this.#emit(this.#emitter, "open", opened);
  }

  // What the server says.

  #message(m: Message, token: boolean): void {
    this.#liveness?.heard();
    const link = this.#link;
    switch (m.type) {
      case "connected":
        this.#id = m.connection_id!;
        this.#user = m.user ?? null;
        if (m.auth_required && !token) return this.#end(new ParleyError("auth_required"));
        return this.#answered();
      case "reconnect_token":
        return this.#session.heard(m.token);
      case "ping":
        return link!.send({ type: "pong" });
      case "goodbye":
        return this.#retry.goodbye(m.retry_after, Date.now());
      case "auth_expiring":
        if (this.#auth.canRenew) this.refresh().catch((e) => this.#failed(e));
        return;
    }
    const room = m.room === undefined ? undefined : /^(joined|position)$/.test(m.type) ? this.#membership(m.room) : this.#rooms.get(m.room);
    const deliver = room ? room.take(m) : !ours.test(m.type);
    if (link !== this.#link) return;
    if (m.ref !== undefined) this.#calls.answered(m);
    else if (m.type === "error") this.#emit(this.#emitter, "error", new ParleyError(m.code, m.message));
    else if (deliver) {
      this.#emit(this.#emitter, "message", m);
      this.#emit(this.#emitter, ":" + m.type, m);
    }
  }

  #failed(e: unknown): void {
    this.#emit(this.#emitter, "error", e instanceof ParleyError ? e : new ParleyError("unavailable", String(e)));
  }

  // Drops, attempts and the end.

  #abandon(reason: string, code = 1006): void {
    this.#link?.abandon();
    this.#dropped(code, reason);
  }

  /** Takes the connection away from all that stood on it. */
  #unlink(): void {
    this.#link = null;
    this.#flown = false;
    this.#id = null;
    clearTimeout(this.#timer);
    this.#liveness?.stop();
    this.#liveness = null;
  }

  #dropped(code: number, reason: string): void {
    const endings = this.#endings;
    this.#unlink();
    this.#session.dropped();
    for (const room of this.#rooms.values()) room.dropped();
    this.#calls.fail("dropped");
    if (code === 4006) this.#auth.stale = true;
    if (this.#opening!.done) this.#opening = new Deferred();
    const over = stays(code) ? (ends[code] ?? "disconnected") : code === 4006 && !this.#auth.canRenew ? "token_expired" : null;
    const wait = over ? null : this.#retry.next(Date.now());
    const retryIn = offline() ? null : wait;
    if (wait !== null) this.#become("waiting");
    if (endings !== this.#endings) return;
    if (retryIn !== null) this.#wait(retryIn);
    this.#emit(this.#emitter, "drop", { code, reason, retryIn });
    if (wait === null && endings === this.#endings) this.#end(new ParleyError(over ?? "gave_up", reason));
  }

  #wait(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#attempt(), ms);
  }

  /** The network, or the person, is back. */
  #back(): void {
    if (this.#state === "waiting") this.#wait(this.#retry.soon(Date.now()));
    else this.#liveness?.ask();
  }

  #end(error: ParleyError, code = 1000, reason = ""): void {
    this.#endings++;
    const link = this.#link;
    this.#unlink();
    this.#unwatch?.();
    this.#session.forget();
    this.#user = null;
    this.#untold.length = 0;
    this.#state = "closed"; // what ends now is told to promises only
    for (const room of this.#rooms.values()) room.ended(error);
    this.#calls.fail("closed");
    for (const go of this.#queue.splice(0)) go();
    this.#opening?.reject(error);
    link?.close(code, reason);
    this.#become("closed");
  }
}
