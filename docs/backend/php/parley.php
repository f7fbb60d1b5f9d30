<?php
// How PHP calls Parley's HTTP API. Copy this file into your project: it needs PHP 8.1 or newer, no extension and no library.
//
//   PARLEY_API_KEY  the key, as `parley key create` prints it
//   PARLEY_URL      where the API listens, if that is not http://127.0.0.1:9092
declare(strict_types=1);

/** Parley refused a request, or did not answer. Programs look at $problem ("room_full"); people read the message. */
final class ParleyProblem extends RuntimeException
{
    public function __construct(public readonly string $problem, string $detail, public readonly int $status = 0)
    {
        parent::__construct("$problem: $detail");
    }
}

/**
 * Calls the API and returns the answer, decoded.
 *
 *   parley('POST', '/v1/publish', ['room' => 'chat:1', 'data' => ['text' => 'hi']]);
 *   parley('GET', '/v1/members', ['room' => 'chat:1']);
 *
 * @param array<string, mixed> $fields the body of a POST, the query of a GET
 * @return array<string, mixed>
 * @throws ParleyProblem if Parley refuses, or cannot be reached
 * @throws JsonException if the fields are no JSON, such as a text that is not UTF-8
 */
function parley(string $method, string $path, array $fields = []): array
{
    $base = getenv('PARLEY_URL') ?: 'http://127.0.0.1:9092';
    $key = trim((string) getenv('PARLEY_API_KEY'));
    $url = rtrim($base, '/') . $path;
    $http = [
        'method' => $method,
        'header' => ["Authorization: Bearer $key", 'Connection: close'],
        'timeout' => 5,           // seconds: a page must not wait for ever
        'ignore_errors' => true,  // the body of a refusal says why; PHP would throw it away
        'follow_location' => 0,   // the key is for Parley alone
    ];
    if ($method === 'GET') {
        $url .= '?' . http_build_query($fields);
    } else {
        $http['header'][] = 'Content-Type: application/json';
        $http['content'] = json_encode($fields, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }

    $stream = @fopen($url, 'r', false, stream_context_create(['http' => $http]));
    if ($stream === false) {
        throw new ParleyProblem('unreachable', "nothing answers at $base: does parley serve run, with api_port on?");
    }
    $text = (string) stream_get_contents($stream);
    $meta = stream_get_meta_data($stream);
    fclose($stream);
    $status = (int) (explode(' ', $meta['wrapper_data'][0] ?? '')[1] ?? 0); // "HTTP/1.1 200 OK"
    $answer = json_decode($text, true);
    if (!is_array($answer) || $meta['timed_out']) {
        throw new ParleyProblem('unreachable', "the answer of $base is not whole, or not Parley's", $status);
    }
    if ($status >= 400) { // a problem document (RFC 9457)
        throw new ParleyProblem($answer['code'] ?? 'unknown', $answer['detail'] ?? $answer['title'] ?? '', $status);
    }
    return $answer;
}
