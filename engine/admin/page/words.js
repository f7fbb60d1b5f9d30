// All texts of the pages: English, Chinese. {0} and {1} are values. A key with 1 at its end stands for one.

export const words = {
  title: ['Parley chat', 'Parley 聊天室'],
  other: ['中文', 'English'],
  otherTag: ['zh-CN', 'en'], // the language of the two words around this line
  otherTitle: ['切换为中文', 'Switch to English'],

  // The connection. c_ and a number: why it ended.
  connecting: ['connecting', '正在连接'],
  connected: ['connected', '已连接'],
  reconnecting: ['reconnecting', '正在重连'],
  closed: ['disconnected', '已断开'],
  resumed: ['resumed', '会话已恢复'],
  afresh: ['new session', '新会话'],
  caughtUp1: ['{0} · 1 message', '{0} · 补收 1 条'],
  caughtUp: ['{0} · {1} messages', '{0} · 补收 {1} 条'],
  missing1: ['{0} · 1 missing', '{0} · 缺 1 条'],
  missing: ['{0} · {1} missing', '{0} · 缺 {1} 条'],
  gap: ['{0} · gap', '{0} · 有缺失'],
  cut: ['Cut the connection', '切断连接'],
  cutShort: ['Cut', '切断'],
  cutTitle: ['Closes the connection for 5 seconds. Then the session resumes.', '断开连接 5 秒，然后恢复会话。'],
  now: ['Reconnect now', '立即重连'],
  nowShort: ['Now', '重连'],
  again: ['Connect', '连接'],
  againShort: ['Connect', '连接'],
  cutByYou: ['You cut the connection for 5 seconds. Write something in another window meanwhile.', '您把连接切断了 5 秒。趁现在到另一个窗口里说点什么。'],
  lost: ['The connection is lost: {0} ({1}). The page tries again in {2} s.', '连接断开：{0}（{1}）。{2} 秒后重试。'],
  lostOffline: ['The connection is lost: {0} ({1}). The page tries again when there is a network.', '连接断开：{0}（{1}）。网络恢复后重试。'],
  unreachable: [
    'No connection to {0}. Start the server with “parley serve”. If it runs and its setting “origins” has a list, add {1} to the list. The page tries again.',
    '连不上 {0}。请用“parley serve”启动服务器；如果它已在运行，并且配置项“origins”列出了来源，请把 {1} 加进去。页面会继续重试。',
  ],
  takenOver: ['Another window has taken this session over. Press “Connect” for a new session.', '另一个窗口接管了这个会话。按“连接”开始新会话。'],
  ended: ['The connection has ended: {0} ({1}). Press “Connect” to try again.', '连接已结束：{0}（{1}）。按“连接”重试。'],
  c_1001: ['the server is shutting down', '服务器正在关闭'],
  c_1006: ['the server or the network does not answer', '服务器或网络没有响应'],
  c_1009: ['a message was too large for the server, so write less at once', '消息超过服务器的上限，请写短一些'],
  c_1011: ['the server failed, and its log says why', '服务器出错，原因见服务器日志'],
  c_1012: ['this worker of the server restarts', '服务器的这个工作进程正在重启'],
  c_1013: ['the server has as many connections as it allows', '服务器的连接数已到上限'],
  c_4001: ['the server does not accept the access token', '服务器不接受访问令牌'],
  c_4002: ['the server heard nothing of this page for too long', '服务器太久没有收到本页的消息'],
  c_4003: ['this page read its messages too slowly', '本页读取消息太慢'],
  c_4005: ['this page sent too many messages', '本页发送消息太频繁'],
  c_4006: ['the access token has expired', '访问令牌已过期'],
  c_4007: ['a backend or the operator closed it', '后端或运维人员关闭了它'],
  c_other: ['the server closed it', '服务器关闭了它'],

  // Rooms and members.
  rooms: ['Rooms', '房间'],
  roomName: ['Join a room', '加入房间'],
  join: ['Join', '加入'],
  leaveRoom: ['Leave {0}', '离开 {0}'],
  unread: ['{0}, {1} unread', '{0}，{1} 条未读'],
  member: ['1 member', '1 位成员'],
  members: ['{0} members', '{0} 位成员'],
  noMembers: ['Members', '成员'],
  more: ['and {0} more', '还有 {0} 位'],
  you: ['you', '您'],
  youAre: ['Your connection’s id', '您的连接编号'],
  writeTo: ['Write to {0} only', '私信 {0}'],
  joined: ['{0} joined', '{0} 加入了'],
  left: ['{0} left', '{0} 离开了'],
  leftRoom: ['You are not in {0} any more: {1}', '您已不在 {0}：{1}'],
  refused: ['The server refuses the room {0}: {1}', '服务器拒绝您加入 {0}：{1}'],
  workers: ['Connections of each worker:', '各工作进程的连接数：'],
  workersTitle: ['The server runs as several processes, called workers', '服务器由多个进程组成，称为工作进程'],
  wire: ['On the wire', '网络上的消息'],
  wireTitle: ['Each message of the connection, as it goes and as it comes', '这条连接收发的每一条消息'],

  // Messages.
  messages: ['Messages', '消息'],
  name: ['Name', '名字'],
  yourName: ['your name', '您的名字'],
  to: ['To', '发给'],
  everyone: ['all in {0}', '{0} 的所有人'],
  nobody: ['nobody', '没有人'],
  message: ['Message', '消息'],
  write: ['Write to {0}', '写给 {0}'],
  writePrivate: ['Write to {0} only', '只写给 {0}'],
  nowhere: ['Join a room to write', '先加入一个房间'],
  send: ['Send', '发送'],
  sending: ['sending', '发送中'],
  reached: ['reached {0}', '送达 {0} 人'],
  failed: ['not sent: {0}', '未发送：{0}'],
  unknown: ['not known whether it arrived', '不知道是否送达'],
  backend: ['Backend', '后端'],
  noSuch: ['No client with this id is connected. Click on a member to choose one.', '没有这个编号的连接。点击成员即可选择。'],
  privateTo: ['to {0} only', '只对 {0} 说'],
  privateFrom: ['to you only', '只对您说'],
  gapRange: ['Messages {0} to {1} are missing', '缺少第 {0} 至 {1} 条消息'],
  gapOne: ['Message {0} is missing', '缺少第 {0} 条消息'],
  gapUnknown: ['Messages are missing; the room’s numbering began anew', '有消息缺失：房间已重新编号'],
  noHistory: [
    'This room keeps no history, so what was said meanwhile is missing. With “parley serve --history \'**\'” nothing is.',
    '这个房间不保存历史，期间的消息已经错过。用“parley serve --history \'**\'”启动服务器，就会补上。',
  ],

  // What to do first.
  hint: ['No message here yet. Try this:', '还没有消息。不妨试试：'],
  step1: ['Open this page in {0}.', '在{0}里打开本页。'],
  second: ['a second window', '第二个窗口'],
  step2: ['Write something below. The other window shows it at once.', '在下面写点什么，另一个窗口立刻就会显示。'],
  step3: ['Cut the connection of one window and write in the other. After 5 seconds the first window is back.', '切断一个窗口的连接，在另一个窗口里发言。5 秒后，前一个窗口会自动恢复。'],
  hintNowhere: ['You are in no room. Enter a name above, such as lobby, and press “Join”.', '您不在任何房间里。在上面输入房间名，例如 lobby，再按“加入”。'],
  bare: ['Bare page', '极简页面'],
  bareTitle: ['A room without the client library: new WebSocket and a few lines', '不用客户端库：只有 new WebSocket 和几行代码'],
  bareName: ['Parley, bare', 'Parley 极简页面'],
  bareNote: ['No library: new WebSocket and fifteen lines of code. The room is lobby.', '没有客户端库：只有 new WebSocket 和十五行代码。房间是 lobby。'],
  bareCode: ['Read the code', '阅读代码'],
  bareWrite: ['Write to lobby', '写给 lobby'],
  chat: ['Chat', '聊天室'],

  // What the server refuses, by its code.
  e_already_resumed: ['This connection has a session already.', '这条连接已经有会话了。'],
  e_attempts_exhausted: ['The session was resumed too often, so the page began a new one.', '会话恢复次数太多，页面已开始新会话。'],
  e_auth_required: [
    'This server asks for an access token. Make one with “parley token --user ann --join \'**\' --publish \'**\'” and the server’s settings. Put #token=TOKEN at the end of this page’s address.',
    '服务器要求访问令牌。用“parley token --user ann --join \'**\' --publish \'**\'”加上服务器的配置生成一个，再在本页地址末尾加上 #token=令牌。',
  ],
  e_disconnected: ['The server has ended the connection for good.', '服务器已彻底结束这条连接。'],
  e_forbidden: ['You have no right to do this in this room. Choose another room, or a token with more rights.', '您在这个房间没有这项权限。请换一个房间，或换一个权限更多的令牌。'],
  e_internal: ['The server failed. Its log says why.', '服务器出错，原因见服务器日志。'],
  e_invalid_room: ['No room can have this name. Use 1 to 255 bytes without control characters.', '房间不能用这个名字。请用 1 至 255 字节，不含控制字符。'],
  e_invalid_token: ['The session has ended, so the page began a new one.', '会话已结束，页面已开始新会话。'],
  e_not_in_room: ['You are not in this room. Join it first.', '您不在这个房间里，请先加入。'],
  e_offline: ['The page is not connected. Press “Connect”.', '页面没有连接，请按“连接”。'],
  e_overloaded: ['The server is busy and gave the message to no member. Try again.', '服务器正忙，消息没有发给任何人。请重试。'],
  e_rate_limited: ['You send faster than the server allows. Wait a second and try again.', '发送太快，超过了服务器的限制。请稍等再试。'],
  e_room_full: ['The room is full. Choose another room, or wait until a member leaves.', '房间已满。请换一个房间，或等有人离开。'],
  e_token_expired: ['The access token has expired. Put a new one into this page’s address: #token=TOKEN.', '访问令牌已过期。请在本页地址里换一个新的：#token=令牌。'],
  e_too_many_rooms: ['You are in as many rooms as the server allows. Leave one first.', '您加入的房间数已到上限，请先离开一个。'],
  e_unauthorized: ['The server does not accept the access token in this page’s address. Make a new one.', '服务器不接受本页地址里的访问令牌，请重新生成。'],
  e_unavailable: ['A part of the server is away for a moment. Try again.', '服务器的一部分暂时不可用，请重试。'],
  e_unknown_type: ['This server does not know this message. Private messages need its setting “examples: true”.', '服务器不认识这种消息。私信需要配置 examples: true。'],
};

const languages = ['en', 'zh'];

/** The language that the person has chosen, or the first of the browser's languages that this page speaks. */
function preferred() {
  let wishes = navigator.languages ?? [navigator.language];
  try { wishes = [localStorage.getItem('language') ?? '', ...wishes]; } catch { /* the browser keeps nothing for this page */ }
  return wishes.map((tag) => tag.split('-')[0]).find((tag) => languages.includes(tag)) ?? 'en';
}

export let language = preferred();

/** Speaks the other language from now on, also in the person's next windows. */
export function switchLanguage() {
  language = language === 'zh' ? 'en' : 'zh';
  try { localStorage.setItem('language', language); } catch { /* then this page alone */ }
}

/** Puts the words of the language into the page: its texts are named by data-say, and its attributes by data-say-NAME. */
export function translate() {
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const at of document.querySelectorAll('[data-say]')) at.textContent = say(at.dataset.say);
  for (const name of ['title', 'placeholder', 'aria-label', 'lang']) {
    for (const at of document.querySelectorAll(`[data-say-${name}]`)) at.setAttribute(name, say(at.getAttribute(`data-say-${name}`)));
  }
}

export const say = (key, ...values) => words[key][languages.indexOf(language)].replace(/\{(\d)\}/g, (hole, n) => values[n] ?? hole);

export const count = (key, n, ...values) => say(n === 1 ? key + '1' : key, ...values, n);

/** A refusal in plain words, with its code. An application's server may have codes of its own. */
export const plain = ({ code, message = '' }) => `${words['e_' + code] ? say('e_' + code) : message} (${code})`;

/** Why a connection ended, in plain words. */
export const ending = (code) => say(words['c_' + code] ? 'c_' + code : 'c_other');
