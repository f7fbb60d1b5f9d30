// The page's words, in English and Chinese.

const words = {
  en: {
    connecting: 'connecting', connected: 'connected', reconnecting: 'reconnecting', closed: 'disconnected',
    resumed: 'resumed', afresh: 'new session', caughtUp1: '{0} · 1 message', caughtUp: '{0} · {1} messages',
    missing1: '{0} · 1 missing', missing: '{0} · {1} missing', gap: '{0} · gap',
    cut: 'Cut the connection', cutShort: 'Cut', cutTitle: 'Closes the connection for 5 seconds. Then the session resumes.', now: 'Reconnect now', nowShort: 'Now', again: 'Connect', againShort: 'Connect',
    workers: 'Workers', workersTitle: 'Connections of each worker', bare: 'Bare page', bareTitle: 'A room without the client: new WebSocket and a few lines', other: '中文',
    rooms: 'Rooms', roomName: 'Join a room', join: 'Join', leaveRoom: 'Leave {0}', unread: '{0}, {1} unread',
    member: '1 member', members: '{0} members', noMembers: 'Members', you: 'you', youAre: 'Your id', more: 'and {0} more', writeTo: 'Write to {0} only',
    wire: 'On the wire', wireTitle: 'Each message of the connection, as it goes and as it comes',
    name: 'Name', yourName: 'your name', to: 'To', everyone: 'everyone in {0}', nobody: 'nobody',
    message: 'Message', write: 'Write to {0}', writePrivate: 'Write to {0} only', nowhere: 'Join a room to write', send: 'Send',
    hint: 'Nothing here yet. Open this page in a ', second: 'second window', hintEnd: ' and talk to yourself.',
    cutByYou: 'You cut the connection for 5 seconds. Write something in another window meanwhile.',
    lost: 'The connection is lost ({0}). Next attempt in {1} s.', lostOffline: 'The connection is lost ({0}). The next attempt follows when there is a network.',
    takenOver: 'Another window has taken this session over.', ended: 'The connection has ended ({0}).',
    gapRange: 'Messages {0} to {1} are missing', gapOne: 'Message {0} is missing', gapUnknown: 'Messages are missing; the room’s numbering began anew',
    noHistory: 'This room keeps no history, so what was said meanwhile is missing. With “parley serve --history \'**\'” nothing is.',
    joined: '{0} joined', left: '{0} left', leftRoom: 'You are not in {0} any more ({1}).', refused: 'The server refuses the room: {0}',
    sending: 'sending', reached: 'reached {0}', failed: 'not sent: {0}', unknown: 'not known whether it arrived', backend: 'Backend', noSuch: 'No client with this id is connected.',
    privateTo: 'to {0} only', privateFrom: 'to you only',
  },
  zh: {
    connecting: '连接中', connected: '已连接', reconnecting: '重新连接中', closed: '已断开',
    resumed: '已恢复', afresh: '新会话', caughtUp1: '{0} · 补收 1 条', caughtUp: '{0} · 补收 {1} 条',
    missing1: '{0} · 缺 1 条', missing: '{0} · 缺 {1} 条', gap: '{0} · 有缺失',
    cut: '切断连接', cutShort: '切断', cutTitle: '断开连接 5 秒，然后恢复会话。', now: '立即重连', nowShort: '重连', again: '连接', againShort: '连接',
    workers: '工作进程', workersTitle: '每个工作进程的连接数', bare: '极简页面', bareTitle: '不用客户端库：只有 new WebSocket 和几行代码', other: 'English',
    rooms: '房间', roomName: '加入房间', join: '加入', leaveRoom: '离开 {0}', unread: '{0}，{1} 条未读',
    member: '1 位成员', members: '{0} 位成员', noMembers: '成员', you: '您', youAre: '您的编号', more: '还有 {0} 位', writeTo: '只写给 {0}',
    wire: '线路上的消息', wireTitle: '连接上收发的每一条消息',
    name: '名字', yourName: '您的名字', to: '发给', everyone: '{0} 的所有人', nobody: '无人',
    message: '消息', write: '写给 {0}', writePrivate: '只写给 {0}', nowhere: '先加入一个房间', send: '发送',
    hint: '还没有消息。打开', second: '第二个窗口', hintEnd: '，就可以和自己聊天。',
    cutByYou: '您把连接切断了 5 秒。此时可在另一个窗口里发言。',
    lost: '连接断开（{0}），{1} 秒后重试。', lostOffline: '连接断开（{0}），网络恢复后重试。',
    takenOver: '另一个窗口接管了这个会话。', ended: '连接已结束（{0}）。',
    gapRange: '缺少第 {0} 至 {1} 条消息', gapOne: '缺少第 {0} 条消息', gapUnknown: '有消息缺失：房间已重新编号',
    noHistory: '这个房间不保存历史，期间的消息已缺失。用 “parley serve --history \'**\'” 启动就不会丢失。',
    joined: '{0} 加入了', left: '{0} 离开了', leftRoom: '您已不在 {0}（{1}）。', refused: '服务器拒绝加入该房间：{0}',
    sending: '发送中', reached: '送达 {0} 人', failed: '未发送：{0}', unknown: '不知道是否送达', backend: '后端', noSuch: '没有这个编号的连接。',
    privateTo: '只对 {0} 说', privateFrom: '只对您说',
  },
};

export let language = navigator.language?.startsWith('zh') ? 'zh' : 'en';

export function setLanguage(to) {
  language = to in words ? to : language;
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  for (const at of document.querySelectorAll('[data-say]')) at.textContent = say(at.dataset.say);
  for (const name of ['title', 'placeholder', 'aria-label']) {
    for (const at of document.querySelectorAll(`[data-say-${name}]`)) at.setAttribute(name, say(at.getAttribute(`data-say-${name}`)));
  }
}

export const say = (key, ...values) => words[language][key].replace(/\{(\d)\}/g, (_, n) => values[n]);

/** A key with 1 at its end stands for one. */
export const count = (key, n, ...values) => say(n === 1 ? key + '1' : key, ...values, n);
