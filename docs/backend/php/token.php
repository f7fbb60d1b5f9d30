<?php
// Makes a token: a text by which a browser shows Parley which user it is, and what it may do. PHP signs it with a secret that
// only PHP and Parley know (HS256 of RFC 7515), so that Parley need not ask PHP.
//
//   PARLEY_JWT_SECRET_FILE=secrets/jwt php token.php 42
//
// Parley reads the same file: its setting is jwt_secret_file.
declare(strict_types=1);

/**
 * A token for a user, good for $seconds. Parley asks the page for a new one before it ends.
 *
 * @param string $user the user's id in your system, 1 to 128 bytes
 * @param array<string, mixed> $rights "join", "publish": patterns of rooms, where * stands for any characters but ":"; "auto": rooms
 *     that the browser is in at once; "attributes": values for the connection. Do not build a pattern from what a user typed:
 *     a user called * would match all.
 */
function parleyToken(string $user, array $rights, int $seconds = 900): string
{
    $now = time();
    return sign(['sub' => $user, 'iat' => $now, 'exp' => $now + $seconds, 'parley' => $rights]);
}

/** @param array<string, mixed> $claims */
function sign(array $claims): string
{
    $path = getenv('PARLEY_JWT_SECRET_FILE') ?: throw new RuntimeException('PARLEY_JWT_SECRET_FILE names no file');
    $secret = @file_get_contents($path);
    if ($secret === false) {
        throw new RuntimeException("cannot read $path");
    }
    $secret = rtrim($secret, "\r\n"); // the end of the line is not part of the secret
    $encode = fn (array $part): string => base64url(json_encode($part, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE));
    $signed = $encode(['alg' => 'HS256', 'typ' => 'JWT']) . '.' . $encode($claims);
    return $signed . '.' . base64url(hash_hmac('sha256', $signed, $secret, true));
}

/** Base64 for URLs: - and _ in place of + and /, and no = at the end. */
function base64url(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

// From here on: the command line. A page that requires this file does not come here.
if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    if ($argc !== 2) {
        exit("usage: php token.php USER\n");
    }
    try {
        echo parleyToken($argv[1], ['join' => ['chat:*'], 'publish' => ['chat:*']]), "\n";
    } catch (RuntimeException | JsonException $e) {
        fwrite(STDERR, $e->getMessage() . "\n");
        exit(1);
    }
}
