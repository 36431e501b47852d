// openid-client, oauth4webapi and jose against a Rota server: what nobody here wrote. Prints one JSON object.
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

const { url, client, other, person, password } = JSON.parse(process.argv[2])
const insecure = { [oauth.allowInsecureRequests]: true }
const said = {}

// oauth4webapi: metadata, each way to authenticate, each grant, introspection, revocation.
const issuer = new URL(url)
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
)
said.issuer = as.issuer
const me = { client_id: client.id }
const methods = {
  basic: oauth.ClientSecretBasic(client.secret),
  post: oauth.ClientSecretPost(client.secret),
}
said.credentials = {}
for (const [name, method] of Object.entries(methods)) {
  const result = await oauth.processClientCredentialsResponse(
    as,
    me,
    await oauth.clientCredentialsGrantRequest(as, me, method, { scope: 'introspect' }, insecure),
  )
  said.credentials[name] = [result.token_type, result.scope, result.expires_in]
}
const signedIn = await oauth.processGenericTokenEndpointResponse(
  as,
  me,
  await oauth.genericTokenEndpointRequest(
    as, me, methods.basic, 'password', { username: person, password, scope: 'read write' }, insecure,
  ),
)
const introspect = async (token) =>
  oauth.processIntrospectionResponse(
    as, me, await oauth.introspectionRequest(as, me, methods.basic, token, insecure),
  )
const refresh = async (token, more = {}, by = me, method = methods.basic) =>
  oauth.processRefreshTokenResponse(
    as, by, await oauth.refreshTokenGrantRequest(as, by, method, token, { ...insecure, additionalParameters: more }),
  )
said.access = await introspect(signedIn.access_token)
said.refresh = await introspect(signedIn.refresh_token)
const narrowed = await refresh(signedIn.refresh_token, { scope: 'read' })
said.narrowed = narrowed.scope
const refusal = async (work) => {
  try {
    await work()
    return 'granted'
  } catch (error) {
    return [error.error ?? error.code, error.status ?? null]
  }
}
said.widened = await refusal(() => refresh(narrowed.refresh_token, { scope: 'read admin' }))
said.anothers = await refusal(() =>
  refresh(narrowed.refresh_token, {}, { client_id: other.id }, oauth.ClientSecretBasic(other.secret)),
)
said.wrongSecret = await refusal(() => refresh(narrowed.refresh_token, {}, me, oauth.ClientSecretBasic('wrong')))

// jose: our key set verifies the access token as RFC 9068 wants, and keeps its keys.
const keys = jose.createRemoteJWKSet(new URL(as.jwks_uri))
const verified = await jose.jwtVerify(narrowed.access_token, keys, {
  issuer: url, audience: 'rota', typ: 'at+jwt', algorithms: ['ES256'],
  requiredClaims: ['exp', 'iat', 'sub', 'jti', 'client_id', 'sid'],
})
said.verified = [verified.payload.client_id, verified.payload.scope, verified.protectedHeader.typ]
const validated = await oauth.validateJwtAccessToken(
  as, new Request(`${url}/x`, { headers: { authorization: `Bearer ${narrowed.access_token}` } }), 'rota', insecure,
)
said.validated = validated.sub

await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, me, methods.post, narrowed.refresh_token, insecure),
)
// Which of the two processes answers is open, and the other one hears of the end a moment later.
for (let n = 0; n < 50 && (await introspect(narrowed.access_token)).active; n++) {
  await new Promise((go) => setTimeout(go, 100))
}
said.afterwards = [await introspect(narrowed.access_token), await introspect(narrowed.refresh_token)]
said.dead = await refusal(() => refresh(narrowed.refresh_token))
await oauth.processRevocationResponse(await oauth.revocationRequest(as, me, methods.basic, 'unknown', insecure))

// openid-client, from discovery to the end.
const config = await openid.discovery(issuer, client.id, client.secret, openid.ClientSecretPost(client.secret), {
  algorithm: 'oauth2',
  execute: [openid.allowInsecureRequests],
})
said.openid = {}
const own = await openid.clientCredentialsGrant(config, { scope: 'introspect revoke' })
said.openid.credentials = [own.token_type, own.scope, own.expiresIn() > 800]
const tokens = await openid.genericGrantRequest(config, 'password', { username: person, password })
const fresh = await openid.refreshTokenGrant(config, tokens.refresh_token)
said.openid.rotated = fresh.refresh_token !== tokens.refresh_token
said.openid.active = (await openid.tokenIntrospection(config, fresh.access_token)).active
await openid.tokenRevocation(config, fresh.access_token, { token_type_hint: 'access_token' })
said.openid.afterwards = await openid.tokenIntrospection(config, fresh.refresh_token)
said.openid.dead = await refusal(() => openid.refreshTokenGrant(config, fresh.refresh_token))

console.log(JSON.stringify(said))
