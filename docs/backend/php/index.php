<?php
// A chat between browsers and PHP. Each browser listens to Parley; what a user says goes to PHP, which can check and store it
// before it publishes it. See ../start.md. Start it with the built-in server of PHP:
//
//   php -S 127.0.0.1:8000 index.php
//
// CHAT_WS_URL is where browsers reach Parley, if that is not ws://127.0.0.1:9090/ (in production wss://...).
declare(strict_types=1);
require __DIR__ . '/parley.php';
require __DIR__ . '/token.php';

const ROOM = 'chat:1';

// SameSite keeps the forms of other sites from speaking in this user's name.
session_start(['cookie_httponly' => true, 'cookie_samesite' => 'Strict', 'use_strict_mode' => true]);
$user = $_SESSION['user'] ?? null;

function answer(int $status, array $body): never
{
    http_response_code($status);
    header('Content-Type: application/json');
    header('Cache-Control: no-store'); // a token is a secret
    exit(json_encode($body, JSON_THROW_ON_ERROR));
}

try {
    if (isset($_POST['login'])) { // your login, with a password, stands here
        $name = is_string($_POST['login']) ? $_POST['login'] : '';
        if (!preg_match('/^[\p{L}\p{N}_-]{1,32}$/Du', $name)) {
            answer(400, ['code' => 'name', 'detail' => 'a name has 1 to 32 letters and digits']);
        }
        session_regenerate_id(true);
        $_SESSION['user'] = $name;
        header('Location: /', true, 303);
        exit;
    }
    if ($user !== null && isset($_GET['token'])) {
        // The browser enters the room at once (auto), and may not publish: that is PHP's part here.
        $token = parleyToken($user, ['join' => [ROOM], 'auto' => [ROOM], 'publish' => []]);
        answer(200, ['url' => getenv('CHAT_WS_URL') ?: 'ws://127.0.0.1:9090/', 'token' => $token]);
    }
    if ($user !== null && isset($_POST['say'])) {
        $text = is_string($_POST['say']) ? $_POST['say'] : '';
        if ($text === '' || strlen($text) > 2000 || !preg_match('//u', $text)) {
            answer(400, ['code' => 'text', 'detail' => 'a message has 1 to 2000 bytes']);
        }
        parley('POST', '/v1/publish', ['room' => ROOM, 'data' => ['from' => $user, 'text' => $text]]);
        answer(200, []);
    }
    if (isset($_GET['token']) || isset($_POST['say'])) {
        answer(401, ['code' => 'login', 'detail' => 'log in first']);
    }
} catch (ParleyProblem | RuntimeException $e) {
    error_log($e->getMessage()); // for you; the browser learns no more than it needs
    answer(502, ['code' => $e instanceof ParleyProblem ? $e->problem : 'internal', 'detail' => 'the chat is not available']);
}
?>
<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<?php if ($user === null): ?>
<form method="post">Your name: <input name="login" autofocus required> <button>Log in</button></form>
<?php else: ?>
<p>You are <b id="me"><?= htmlspecialchars($user) ?></b>. <span id="state">connecting</span></p>
<div id="log"></div>
<form id="form"><input id="text" autofocus autocomplete="off" maxlength="500"> <button>Say</button></form>
<script>
const $ = (id) => document.getElementById(id);
const show = (text) => { const p = document.createElement('p'); p.textContent = text; $('log').append(p); };
const grant = async () => {
  const response = await fetch('?token');
  if (!response.ok) throw new Error('no token: ' + response.status);
  return response.json();
};

let ws;
async function connect() {
  const again = () => { $('state').textContent = 'offline'; setTimeout(connect, 1000 + Math.random() * 2000); };
  let granted;
  try { granted = await grant(); } catch { return again(); }
  // A page cannot set header fields for a WebSocket; so the token travels as a subprotocol.
  ws = new WebSocket(granted.url, ['parley.v1', 'parley.token.' + granted.token]);
  ws.onmessage = ({data}) => { const m = JSON.parse(data); on[m.type]?.(m); };
  // 4001 and 4007: the server does not want this user. After anything else the page comes back.
  ws.onclose = ({code}) => code === 4001 || code === 4007 ? $('state').textContent = 'refused' : again();
}

const on = {
  joined: (m) => { $('state').textContent = 'online'; show(m.members + ' here'); },
  broadcast: (m) => show((m.data.from ?? 'the shop') + ': ' + m.data.text),
  member_joined: (m) => show((m.user ?? m.connection_id) + ' is here'),
  member_left: (m) => show((m.user ?? m.connection_id) + ' has left'),
  auth_expiring: () => grant().then(({token}) => ws.send(JSON.stringify({type: 'auth', token})), (e) => show(e.message)),
  error: (m) => show(m.code + ': ' + m.message),
};

$('form').onsubmit = async (event) => {
  event.preventDefault();
  const response = await fetch('', {method: 'POST', body: new URLSearchParams({say: $('text').value})});
  if (response.ok) $('text').value = ''; // the message itself comes back over the WebSocket
  else show('not sent: ' + (await response.json()).detail);
};
connect();
</script>
<?php endif ?>
