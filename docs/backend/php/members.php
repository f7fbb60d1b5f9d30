<?php
// Prints who is in a room, a line for each connection:
//
//   php members.php chat:1
//
// A user with two browser windows has two connections. The key needs the scope read.
declare(strict_types=1);
require __DIR__ . '/parley.php';

if (PHP_SAPI !== 'cli' || $argc !== 2) {
    exit("usage: php members.php ROOM\n");
}

try {
    // A page of the list has at most 100 members. "next" is the place where the next page begins; the last page has none.
    $query = ['room' => $argv[1]];
    do {
        $page = parley('GET', '/v1/members', $query);
        foreach ($page['members'] as $member) {
            echo $member['id'], ' ', $member['user'] ?? '-', "\n"; // a connection without a token has no user
        }
        $query['after'] = $page['next'] ?? null;
    } while ($query['after'] !== null);
    if (isset($page['partial'])) {
        fwrite(STDERR, "the list is not complete: a worker did not answer\n");
    }
} catch (ParleyProblem | JsonException $e) {
    fwrite(STDERR, $e->getMessage() . "\n");
    exit(1);
}
