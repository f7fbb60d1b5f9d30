<?php
// Sends a message to all members of a room, from a command line, a cron job or a queue:
//
//   php publish.php chat:1 'hello from PHP'
//
// Each member gets {"type":"broadcast","room":"chat:1","data":{"text":"hello from PHP"},"timestamp":...}.
// The key needs the scope publish.
declare(strict_types=1);
require __DIR__ . '/parley.php';

if (PHP_SAPI !== 'cli' || $argc !== 3) {
    exit("usage: php publish.php ROOM TEXT\n");
}
[, $room, $text] = $argv;

try {
    // "data" may be any JSON. Parley passes it on as it is, and never looks into it.
    parley('POST', '/v1/publish', ['room' => $room, 'data' => ['text' => $text]]);
    echo "published\n";
} catch (ParleyProblem | JsonException $e) {
    // 429 and 503 mean "try again later"; any other code will be the same the next time.
    fwrite(STDERR, $e->getMessage() . "\n");
    exit(1);
}
