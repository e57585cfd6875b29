//! What the admin API is asked in JSON, and how it says that something is wrong.

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::types::Problem;

/// A request's body. One that does not fit is answered with a [`Problem`], before the handler is called.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T> FromRequest<S> for Asked<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::from_request(request, state).await {
            Ok(Json(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(problem(rejection.status(), rejection.body_text())),
        }
    }
}

/// An answer that something is wrong.
pub(crate) fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}
